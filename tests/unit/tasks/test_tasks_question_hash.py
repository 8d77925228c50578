"""Names and sides of the split depend on the question alone."""

import json
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from tasks.question_hash import is_held_out, question_hash


def test_the_hash_is_pinned_for_it_names_problems_on_disk() -> None:
    assert question_hash("What is 7 + 12?") == "c3a7399bc4430829"  # the first 16 digits of sha256sum


def test_case_spacing_and_unicode_form_do_not_matter() -> None:
    assert question_hash("What is  7 + 12?\n") == question_hash("what is 7 + 12?")
    assert question_hash("caf\u00e9") == question_hash("cafe\u0301")
    assert question_hash("What is 7 + 12?") != question_hash("What is 7 - 12?")


def test_the_hash_is_the_same_in_another_process_with_another_hash_seed() -> None:
    questions = ["What is 7 + 12?", "caf\u00e9", ""]
    code = (
        "import json, sys; from tasks.question_hash import question_hash; "
        "print(json.dumps([question_hash(question) for question in json.load(sys.stdin)]))"
    )
    for seed in ("0", "1234"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert json.loads(done.stdout) == [question_hash(question) for question in questions]


@given(st.text(), st.floats(0.01, 0.98))
def test_a_larger_share_only_adds_to_the_held_out_side(question: str, share: float) -> None:
    assert is_held_out(question, 0.99) or not is_held_out(question, share)


def test_the_share_is_about_right() -> None:
    held = sum(is_held_out(f"question {i}", 0.25) for i in range(4000))
    assert 900 < held < 1100
