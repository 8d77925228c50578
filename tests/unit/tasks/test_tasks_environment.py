"""One turn and several turns are the same loop."""

import pytest

from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from tasks.config import AnswerForm, TaskSettings
from tasks.environment import TRY_AGAIN, Retry, SingleTurn, make_environment

PROBLEM = Problem("p", "What is 7 + 12?", "19", ())


def test_a_single_question_is_done_after_the_first_turn_whatever_it_says() -> None:
    assert isinstance(make_environment(TaskSettings(), PROBLEM), SingleTurn)
    for text in ("19", "", "rubbish"):
        assert make_environment(TaskSettings(), PROBLEM).step(text).outcome is TurnOutcome.DONE


def test_retry_says_so_after_a_wrong_answer_and_is_done_after_a_right_one() -> None:
    environment = make_environment(TaskSettings(environment="retry", max_turns=3), PROBLEM)
    first, second = environment.step("18"), environment.step("It is 19.")
    assert (first.outcome, first.text) == (TurnOutcome.CONTINUE, TRY_AGAIN)
    assert (second.outcome, second.text) == (TurnOutcome.DONE, "")


def test_retry_ends_at_the_limit_of_turns() -> None:
    environment = make_environment(TaskSettings(environment="retry", max_turns=2), PROBLEM)
    assert [environment.step("").outcome for _ in range(2)] == [TurnOutcome.CONTINUE, TurnOutcome.LIMIT]


def test_every_rollout_has_turns_of_its_own() -> None:
    settings = TaskSettings(environment="retry", max_turns=2)
    make_environment(settings, PROBLEM).step("18")
    assert make_environment(settings, PROBLEM).step("18").outcome is TurnOutcome.CONTINUE


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("boxed", "\\boxed{19}", "19"),
        ("think_answer", "<answer>19</answer>", "<answer>18</answer>"),
        ("number", "19", "no"),
    ],
)
def test_retry_understands_every_answer_form(form: AnswerForm, right: str, wrong: str) -> None:
    assert Retry("19", form, 3).step(right).outcome is TurnOutcome.DONE
    assert Retry("19", form, 3).step(wrong).outcome is TurnOutcome.CONTINUE


def test_an_answer_only_algebra_could_decide_goes_to_the_verifier_at_once() -> None:
    assert Retry(r"\frac{\pi}{2}", "boxed", 3).step(r"\boxed{\pi/2}").outcome is TurnOutcome.DONE
