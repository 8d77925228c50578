"""A reward and a scorer of your own. Copy, change, name it in a configuration or on the command line:

    memr check-task configs/word_problems.toml --set 'task.rewards=[{name="correctness"}, {name="examples/my_reward.py:brief", weight=0.2}]'
    memr check-task configs/word_problems.toml --set task.scorer=examples/my_reward.py:within_one_percent

Both run in a process of their own, with a time limit (task.verifier_timeout_s). docs/own_code.md has all that they may read.
"""

from contracts.ports import Answer
from tasks.rewards import RewardInput


def brief(inputs: RewardInput) -> float:
    """A reward part: any finite number. It is multiplied by its weight and added to the other parts."""
    return 1.0 - inputs.answer.num_tokens / inputs.answer.max_new_tokens


def within_one_percent(answer: Answer, final: str | None) -> bool:
    """A scorer: is the answer right? final: the answer as task.answer_form finds it in the text, None where there is none."""
    if final is None:
        return False
    right = float(answer.problem.answer)
    return abs(float(final) - right) <= 0.01 * abs(right)
