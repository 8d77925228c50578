"""Environments: the world of one rollout. A single question is the one-turn case of the same loop.

    policy text -> step -> DONE | LIMIT            the rollout ends and is judged by the verifier
                        -> CONTINUE + text         the text is shown to the policy, which writes again

Steps of these run on the worker's own thread, so they use the exact comparison alone, which is bounded in time. Users'
environments live in a process of their own: environment_host.py.
"""

from contracts.ports import EnvironmentReply
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from tasks.answers import compare, final_answer
from tasks.config import AnswerForm, TaskSettings

TRY_AGAIN = "That is not right. Try again."


class SingleTurn:
    """One answer, whatever it says."""

    def step(self, policy_text: str) -> EnvironmentReply:  # noqa: ARG002
        return EnvironmentReply(TurnOutcome.DONE)


class Retry:
    """Says so when an answer is wrong and lets the policy answer again, `max_turns` answers in all.

    An answer that the exact comparison cannot decide ends the rollout: the verifier decides.
    """

    def __init__(self, reference: str, form: AnswerForm, max_turns: int) -> None:
        self._reference, self._form = reference, form
        self._turns_left = max_turns

    def step(self, policy_text: str) -> EnvironmentReply:
        self._turns_left -= 1
        final = final_answer(policy_text, self._form)
        wrong = final is None or compare(final, self._reference) is False
        if not wrong:
            return EnvironmentReply(TurnOutcome.DONE)
        if self._turns_left <= 0:
            return EnvironmentReply(TurnOutcome.LIMIT)
        return EnvironmentReply(TurnOutcome.CONTINUE, TRY_AGAIN)


def make_environment(settings: TaskSettings, problem: Problem) -> SingleTurn | Retry:
    """A fresh environment for one rollout of the problem."""
    if settings.environment == "retry":
        return Retry(problem.answer, settings.answer_form, settings.max_turns)
    return SingleTurn()
