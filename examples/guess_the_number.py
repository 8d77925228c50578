"""A task with an environment of several turns: guess a number between 1 and 20, told "higher" or "lower" after each guess.

memr check-task configs/scripted.toml --set task.kind=examples/guess_the_number.py:GuessTheNumber
"""

from contracts.ports import EnvironmentReply
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from tasks.config import TaskSettings

QUESTION = "I think of a number from 1 to 20, number {}. Guess it: answer with one number."


class Guessing:
    """The world of one rollout. `step` may be async; it is called once for every text of the policy's."""

    def __init__(self, number: int) -> None:
        self.number, self.turns = number, 0

    def step(self, policy_text: str) -> EnvironmentReply:
        self.turns += 1
        guess = int(policy_text) if policy_text.strip().isdecimal() else None
        if guess == self.number:
            return EnvironmentReply(TurnOutcome.DONE)
        if guess is None or self.turns == 5:
            return EnvironmentReply(TurnOutcome.LIMIT)
        return EnvironmentReply(TurnOutcome.CONTINUE, "higher" if guess < self.number else "lower")


class GuessTheNumber:
    """The task: the same index gives the same problem in every process."""

    num_train = 200

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    def problem(self, index: int) -> Problem:
        question, number = QUESTION.format(index), 1 + (7 * index) % 20
        return Problem(f"guess/{index}", question, str(number), ({"role": "user", "content": question},))

    def train_problem(self, index: int) -> Problem:
        return self.problem(index % self.num_train)

    def held_out(self, n: int) -> list[Problem]:
        return [self.problem(self.num_train + i) for i in range(n)]

    def environment(self, problem: Problem) -> Guessing:
        return Guessing(int(problem.answer))
