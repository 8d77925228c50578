"""Environments, stepped before any training: what a policy might write goes in, whatever comes out must be a reply.

problem -> environment -> right, wrong, malformed and empty texts, each in a rollout of its own -> complaints
"""

import asyncio
from collections.abc import Awaitable, Sequence

from contracts.ports import Environment, EnvironmentReply, Task
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from tasks.answers import render_answer
from tasks.config import TaskSettings

MAX_TURNS = 8
MALFORMED = "%$ lorem ipsum <answer \\boxed{"


def step_environments(task: Task, problems: Sequence[Problem], settings: TaskSettings) -> list[str]:
    """One line per rollout that an environment spoilt. Ends the processes that it had started."""
    try:
        return asyncio.run(_step_all(task, problems, settings))
    finally:
        close = getattr(task, "close", None)
        if close is not None:
            close()


async def _step_all(task: Task, problems: Sequence[Problem], settings: TaskSettings) -> list[str]:
    rollouts = [
        _play(task, problem, kind, text)
        for problem in problems
        for kind, text in (
            ("right", render_answer(problem.answer, settings.answer_form)),
            ("wrong", render_answer(f"not {problem.answer}", settings.answer_form)),
            ("malformed", MALFORMED),
            ("empty", ""),
        )
    ]
    return [complaint for complaint in await asyncio.gather(*rollouts) if complaint]


async def _play(task: Task, problem: Problem, kind: str, text: str) -> str:
    """The same text in every turn, up to MAX_TURNS; "" where every reply was one."""
    environment = task.environment(problem)
    try:
        for turn in range(1, MAX_TURNS + 1):
            reply = await _reply(environment, text)
            if reply.outcome is TurnOutcome.FAULT:
                return f"problem {problem.problem_id}, {kind} answer, turn {turn}: no reply from the environment: {reply.text}"
            if reply.outcome is not TurnOutcome.CONTINUE:
                break
        return ""
    finally:
        close = getattr(environment, "close", None)
        if close is not None:
            close()


async def _reply(environment: Environment, text: str) -> EnvironmentReply:
    given = environment.step(text)
    return await given if isinstance(given, Awaitable) else given
