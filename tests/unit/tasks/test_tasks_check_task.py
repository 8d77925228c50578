"""check_task finds what would spoil a run, and passes what is sound, for every shipped answer form."""

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from contracts.errors import LoadError
from contracts.ports import Answer
from contracts.problem import ChatMessage
from contracts.verdict import Invalid, Scored, Verdict
from tasks.check_task import GOOD, TaskCheckReport, check_task
from tasks.config import AnswerForm, RewardPart, TaskSettings
from tasks.load import load_task, make_verifier
from tests.fakes import CountingTask


class LetterTokenizer:
    """One token per character of the chat."""

    eos_token_ids = frozenset({0})
    pad_token_id = 1
    opening = ""
    fingerprint = "letters"

    def encode(self, text: str) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.array([ord(letter) for letter in text], np.int32)

    def encode_chat(self, messages: Sequence[ChatMessage]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return self.encode("".join(f"{message['role']}: {message['content']}\n" for message in messages))

    def encode_reply(self, text: str) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return self.encode(text)

    def decode(self, tokens: np.ndarray[tuple[int], np.dtype[np.int32]]) -> str:
        return "".join(map(chr, tokens.tolist()))


class Says:
    """A verifier with one opinion."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def verify(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [self.verdict for _ in answers]

    def close(self) -> None:
        pass


def run(settings: TaskSettings, **values: Any) -> TaskCheckReport:
    verifier = make_verifier(settings)
    try:
        return check_task(load_task(settings), verifier, LetterTokenizer(), settings, **values)
    finally:
        verifier.close()


@pytest.mark.parametrize("form", get_args(AnswerForm))
def test_arithmetic_is_sound_in_every_answer_form(form: AnswerForm) -> None:
    report = run(TaskSettings(answer_form=form, max_prompt_tokens=2000, worked_examples=2))
    assert report.failures == ()
    assert report.prompt_lengths is not None
    assert len(report.problems) == 32
    assert {one.kind for one in report.judged} == {"good", "wrong", "empty", "malformed", "truncated"}
    assert all(isinstance(one.verdict, Scored) and one.verdict.correct == (one.kind == GOOD) for one in report.judged)


@pytest.mark.parametrize("form", get_args(AnswerForm))
def test_a_file_of_numbers_is_sound_in_every_answer_form(tmp_path: Path, form: AnswerForm) -> None:
    answers = ["1,000", "$18", "0.5", "1/2", "-3", "50%", "7"]
    rows = [{"question": f"{i}?", "answer": f"so\n#### {answers[i % 7]}"} for i in range(60)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run(TaskSettings(kind="file", path=str(path), answer_form=form, max_prompt_tokens=2000), num_problems=30)
    assert report.failures == ()


def test_reasoning_gym_is_sound_and_problems_without_reference_are_counted() -> None:
    settings = TaskSettings(kind="reasoning_gym", max_prompt_tokens=9000, verifier_processes=1)
    assert run(settings, num_problems=4).ok
    words = settings.model_copy(update={"generator": "graph_color", "answer_form": "boxed"})
    report = run(words, num_problems=2)
    assert report.without_reference == 4
    assert GOOD not in {one.kind for one in report.judged}


def test_an_answer_form_that_does_not_fit_the_answers_is_found() -> None:
    settings = TaskSettings(kind="reasoning_gym", max_prompt_tokens=9000, verifier_processes=1)
    report = run(settings.model_copy(update={"generator": "knights_knaves"}), num_problems=2)
    assert any("good answer" in failure and "task.answer_form" in failure for failure in report.failures)


class LosesTags(LetterTokenizer):
    """Tags are special tokens of it, and it leaves special tokens out."""

    def decode(self, tokens: np.ndarray[tuple[int], np.dtype[np.int32]]) -> str:
        return re.sub(r"</?(think|answer)>", "", super().decode(tokens))


class OpensThink(LetterTokenizer):
    """The policy's turn begins after its template's `<think>`."""

    opening = "<think>\n"


def test_answers_are_judged_as_the_tokenizer_gives_them_back() -> None:
    settings = TaskSettings(answer_form="think_answer", max_prompt_tokens=2000)
    with contextlib.closing(make_verifier(settings)) as verifier:
        lost = check_task(load_task(settings), verifier, LosesTags(), settings, 2)
        assert any("good answer" in failure and "tokenizer" in failure for failure in lost.failures)
        assert not any("<answer>" in judged.text for judged in lost.judged if judged.kind == GOOD)
        opened = check_task(load_task(settings), verifier, OpensThink(), settings, 2)
        assert opened.failures == ()
        good = [judged.text for judged in opened.judged if judged.kind == GOOD]
        assert all(text.count("<think>") == 1 and text.startswith("<think>\n") for text in good)


def test_a_prompt_that_is_too_long_is_a_failure_not_the_end() -> None:
    report = run(TaskSettings(max_prompt_tokens=10), num_problems=2)
    assert report.prompt_lengths is None
    assert len(report.failures) == 1
    assert "task.max_prompt_tokens" in report.failures[0]


class FirstMessageAlone(LetterTokenizer):
    """A chat template that shows nothing behind the system message."""

    def encode_chat(self, messages: Sequence[ChatMessage]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return super().encode_chat(messages[:1])


def test_a_question_that_does_not_reach_the_policy_ends_the_check_with_its_own_error() -> None:
    settings = TaskSettings(max_prompt_tokens=2000)
    with (
        contextlib.closing(make_verifier(settings)) as verifier,
        pytest.raises(LoadError, match="have the same prompt, and their questions are two"),
    ):
        check_task(load_task(settings), verifier, FirstMessageAlone(), settings, 2)


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Scored(1.0, True), "wrong answer .* judged correct.*too lenient"),
        (Scored(0.0, False), "good answer .* judged wrong"),
        (Invalid("it broke"), "could not be judged: it broke"),
    ],
)
def test_a_verifier_that_always_says_the_same_is_found(verdict: Verdict, message: str) -> None:
    settings = TaskSettings(max_prompt_tokens=2000)
    report = check_task(CountingTask(), Says(verdict), LetterTokenizer(), settings, 2)
    assert not report.ok
    assert any(re.search(message, failure) for failure in report.failures)


WORLD = """
from contracts.ports import EnvironmentReply
from contracts.rollout import TurnOutcome
from tasks.arithmetic import arithmetic_task

class World:
    turns = 0
    def step(self, text):
        self.turns += 1
        if not text: return {}["empty"]
        return EnvironmentReply(TurnOutcome.DONE if self.turns > 1 else TurnOutcome.CONTINUE, "once more")

class Mine:
    num_train = 20
    def __init__(self, settings): self.inner = arithmetic_task(settings.model_copy(update={"kind": "arithmetic"}))
    def train_problem(self, index): return self.inner.train_problem(index % 20)
    def held_out(self, n): return self.inner.held_out(n)
    def environment(self, problem): return World()
"""


def test_a_users_environment_is_stepped_and_its_fault_told_once(tmp_path: Path) -> None:
    (tmp_path / "world.py").write_text(WORLD)
    report = run(TaskSettings(kind=f"{tmp_path}/world.py:Mine", max_prompt_tokens=2000), num_problems=4)
    [failure] = report.failures
    assert "empty answer, turn 1: no reply from the environment" in failure
    assert f"failed at {tmp_path}/world.py:10 (KeyError): 'empty'" in failure


def test_a_scorer_with_a_bug_is_told_once_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "close.py").write_text(
        "def close(answer, final):\n    return abs(final - answer.problem.answer) < 0.1\n"
    )
    report = run(TaskSettings(scorer=f"{tmp_path}/close.py:close", max_prompt_tokens=2000), num_problems=4)
    assert len(report.failures) == 1
    assert (
        f"could not be judged: task.scorer 'close.py:close' failed at {tmp_path}/close.py:2 (TypeError)"
        in report.failures[0]
    )


def test_a_reward_part_that_fails_over_many_answers_is_said_with_its_share_and_line(tmp_path: Path) -> None:
    """It counts 0 there and ends no run: without a word the check said ok, and three rollouts of four failed in training."""
    (tmp_path / "mine.py").write_text("def part(inputs):\n    return 1.0 / len(inputs.final)\n")
    rewards = (RewardPart(name="correctness"), RewardPart(name=f"{tmp_path}/mine.py:part", weight=0.2))
    report = run(TaskSettings(rewards=rewards, max_prompt_tokens=2000), num_problems=4)
    assert report.ok
    [fault] = report.faults
    assert re.match(r"reward part mine\.py:part failed over 32 of 48 answers, and counts 0 there: .*TypeError", fault)
    assert f"{tmp_path}/mine.py:2" in fault
    assert run(TaskSettings(max_prompt_tokens=2000), num_problems=4).faults == ()


def test_prompts_and_ids_are_looked_at_as_far_as_a_run_would(tmp_path: Path) -> None:
    """The longest prompt stands behind the problems that answers are tried on."""
    path = tmp_path / "a.jsonl"
    rows = [{"question": f"What is {i}?" + " long" * 400 * (i == 30), "answer": i} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run(TaskSettings(kind="file", path=str(path), max_prompt_tokens=1000), num_problems=2, num_held_out=40)
    assert report.data.num_train is not None
    assert report.data.num_train + len(report.data.held_out) == 40
    assert [failure for failure in report.failures if "(1 of 40 prompts checked are too long)" in failure]
