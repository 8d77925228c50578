"""An answer that ends its judge is wrong, if the problem's own reference does not end it too."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from contracts.ports import Answer
from contracts.problem import Problem
from contracts.verdict import Invalid, Scored
from tasks.config import TaskSettings
from tasks.verifier import ProcessVerifier

SCORER = """
import ctypes, os, time

def scorer(answer, final):
    if "sleep" in answer.text: time.sleep(3600)
    if "exit" in answer.text: os._exit(3)
    if "segfault" in answer.text: ctypes.string_at(0)
    if "once" in answer.text and not os.path.exists(MARK):
        open(MARK, "w").close()
        os.kill(os.getpid(), 9)
    return final == answer.problem.answer
"""
ENDINGS = [("sleep", "not judged within task.verifier_timeout_s = 1"), ("exit", "exit code 3"), ("segfault", "SIGSEGV")]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessVerifier]:
    folder = tmp_path_factory.mktemp("scorer")
    (folder / "ending_scorer.py").write_text(f"MARK = {str(folder / 'mark')!r}\n{SCORER}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        settings = TaskSettings(scorer="ending_scorer:scorer", answer_form="think_answer", verifier_timeout_s=1.0)
        made = ProcessVerifier(settings)
        yield made
        made.close()


def answer(final: str, reference: str = "right") -> Answer:
    text = f"<answer>{final}</answer>"
    return Answer(Problem("p", "q", reference, ()), text, 4, 16, False)


@pytest.mark.parametrize(("what", "reason"), ENDINGS)
def test_the_answer_is_wrong_with_the_reason_beside_it_and_its_neighbours_are_judged(
    verifier: ProcessVerifier, what: str, reason: str
) -> None:
    verdicts = verifier.verify([answer("right"), answer(what), answer("right"), answer("wrong")])
    note = verdicts[1].note if isinstance(verdicts[1], Scored) else ""
    assert reason in note
    right, wrong = Scored(1.0, True, {"correctness": 1.0}), Scored(0.0, False, {"correctness": 0.0})
    assert verdicts == [right, replace(wrong, note=note), right, wrong]


@pytest.mark.parametrize(("what", "reason"), ENDINGS)
@pytest.mark.parametrize("reference", ["the same", ""])
def test_where_the_reference_ends_its_judge_too_or_is_not_there_nobody_knows_and_it_is_invalid(
    verifier: ProcessVerifier, what: str, reason: str, reference: str
) -> None:
    (verdict,) = verifier.verify([answer(what, what if reference else "")])
    assert isinstance(verdict, Invalid)
    assert reason in verdict.reason


def test_a_judge_that_dies_of_something_else_costs_a_right_answer_nothing(verifier: ProcessVerifier) -> None:
    (verdict,) = verifier.verify([answer("once", "once")])
    assert verdict == Scored(1.0, True, {"correctness": 1.0})


PARTS = """
import os, time

def hangs(inputs):
    if "slow" in inputs.answer.text: time.sleep(3600)
    if "exit" in inputs.answer.text: os._exit(3)
    return 0.5

def raises(inputs):
    if "odd" in inputs.answer.text: raise KeyError(inputs.final)
    return 0.25
"""


@pytest.fixture(scope="module")
def with_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessVerifier]:
    path = tmp_path_factory.mktemp("parts") / "parts.py"
    path.write_text(PARTS)
    rewards = [{"name": "correctness"}, {"name": f"{path}:hangs"}, {"name": f"{path}:raises"}]
    made = ProcessVerifier(
        TaskSettings.model_validate({"rewards": rewards, "answer_form": "think_answer", "verifier_timeout_s": 1.0})
    )
    yield made
    made.close()


@pytest.mark.parametrize("what", ["slow", "exit"])
@pytest.mark.parametrize("final", ["right", "wrong"])
def test_a_reward_part_that_ends_the_judge_counts_0_and_the_answer_stays_what_it_is(
    with_parts: ProcessVerifier, what: str, final: str
) -> None:
    asked = replace(answer(final), text=f"{what} <answer>{final}</answer>")
    (verdict,) = with_parts.verify([asked])
    right = float(final == "right")
    parts = {"correctness": right, "parts.py:hangs": 0.0, "parts.py:raises": 0.25}
    assert verdict == Scored(right + 0.25, final == "right", parts)
    assert isinstance(verdict, Scored)
    assert verdict.failed == ("parts.py:hangs",)
    assert verdict.note


def test_a_reward_part_that_raises_is_named_beside_one_that_does_not(with_parts: ProcessVerifier) -> None:
    (verdict,) = with_parts.verify([answer("odd")])
    assert verdict == Scored(0.5, False, {"correctness": 0.0, "parts.py:hangs": 0.5, "parts.py:raises": 0.0})
    assert isinstance(verdict, Scored)
    assert verdict.failed == ("parts.py:raises",)
    assert "(KeyError): 'odd'" in verdict.note


def test_a_part_that_ends_the_judge_over_the_reference_too_leaves_the_answer_unjudged(
    with_parts: ProcessVerifier,
) -> None:
    (verdict,) = with_parts.verify([answer("slow", "slow")])
    assert isinstance(verdict, Invalid)


def test_a_scorer_that_ends_the_judge_is_named(verifier: ProcessVerifier) -> None:
    (verdict,) = verifier.verify([answer("exit")])
    assert isinstance(verdict, Scored)
    assert verdict.failed == ("scorer",)
