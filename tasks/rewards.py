"""Task rewards: named, pure parts with values of the order of 1, weighted and added up.

The parts and weights of the Memory-R+ paper: correctness 1, strict format 0.5, soft format 0.5, XML count up to
0.5, integer 0.5. Here each part reaches 1 and the weight says how much it counts. The format parts look at the
text as a whole, over several lines; plain string search keeps them linear in its length.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contracts.ports import Answer
from contracts.verdict import Scored
from tasks.answers import BOX, final_answer, parse_number
from tasks.config import AnswerForm

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
TRAILING_PENALTY = 0.002


@dataclass(frozen=True, slots=True)
class RewardInput:
    """All that a part may look at. final: the extracted final answer, None where there is none."""

    answer: Answer
    form: AnswerForm
    final: str | None
    correct: bool


RewardFunction = Callable[[RewardInput], float]


@dataclass(frozen=True, slots=True)
class WeightedPart:
    """A reward function under its name, with its weight in the sum."""

    name: str
    weight: float
    function: RewardFunction


def combine(inputs: RewardInput, parts: Sequence[WeightedPart]) -> Scored:
    """The weighted sum. Raises ValueError for a part that is not a finite number."""
    values = {part.name: part.weight * _finite(part.name, part.function(inputs)) for part in parts}
    return Scored(math.fsum(values.values()), inputs.correct, values)


def correctness(inputs: RewardInput) -> float:
    """1 for a right answer, 0 for a wrong one."""
    return float(inputs.correct)


def format_strict(inputs: RewardInput) -> float:
    """1 for a text that is the answer form and nothing else.

    think_answer: the four tags once each, on lines of their own, nothing outside. boxed: one closed box, at the
    very end. number: the number alone.
    """
    text = inputs.answer.text.strip()
    if inputs.form == "think_answer":
        framed = text.startswith("<think>\n") and text.endswith("\n</answer>") and "\n</think>\n<answer>\n" in text
        return float(framed and all(text.count(tag) == 1 for tag in TAGS))
    if inputs.form == "boxed":
        closed = final_answer(text, "boxed") is not None
        return float(closed and text.count(BOX) == 1 and text.rstrip("$.").endswith("}"))
    return float(parse_number(text) is not None)


def format_soft(inputs: RewardInput) -> float:
    """1 where the form is there at all: the four tags in order; a closed box; a number somewhere."""
    if inputs.form != "think_answer":
        return float(inputs.final is not None)
    position = 0
    for tag in TAGS:
        found = inputs.answer.text.find(tag, position)
        if found < 0:
            return 0.0
        position = found + len(tag)
    return 1.0


def integer(inputs: RewardInput) -> float:
    """1 where the final answer is a whole number, written in digits."""
    return float(inputs.final is not None and re.fullmatch(r"[-+]?\d+", inputs.final) is not None)


def xml_count(inputs: RewardInput) -> float:
    """A quarter for each of the four tags that stands there exactly once, less 0.002 per character after
    `</answer>`; never below 0."""
    text = inputs.answer.text
    quarters = 0.25 * sum(text.count(tag) == 1 for tag in TAGS)
    _, closed, trailing = text.rpartition("</answer>")
    penalty = TRAILING_PENALTY * len(trailing.strip()) if closed else 0.0
    return max(0.0, quarters - penalty)


def cosine_length(inputs: RewardInput) -> float:
    """The cosine length reward (Yeo et al. 2025, arXiv 2502.03373, section 4): short is better when right, long
    is better when wrong, and running into the limit is worst.

    With t the answer's tokens and T the limit, CosFn(t, a, b) = b + (a - b) (1 + cos(pi t / T)) / 2 goes from a at
    t = 0 to b at t = T. Right: a = 1, b = 0.5. Wrong: a = -1, b = -0.5. Truncated: -1. The paper's own ends
    are 2, 1, -10, 0 and -10; these keep the part within [-1, 1].
    """
    if inputs.answer.truncated:
        return -1.0
    start, end = (1.0, 0.5) if inputs.correct else (-1.0, -0.5)
    progress = min(1.0, inputs.answer.num_tokens / inputs.answer.max_new_tokens)
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * progress))


def built_in(name: str) -> RewardFunction:
    """The part of this name; names are those of tasks.config.REWARD_NAMES."""
    return {
        "correctness": correctness,
        "format": format_strict,
        "soft_format": format_soft,
        "integer": integer,
        "xml_count": xml_count,
        "cosine_length": cosine_length,
    }[name]


def _finite(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"reward part '{name}' gave {value!r}; it must return a finite number")
    return float(value)
