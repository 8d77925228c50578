"""Writes word_problems.jsonl beside itself: 200 word problems of one and two steps, made by rule, so every answer is known.

    python examples/data/make_word_problems.py        the same file every time

A row is {"question": .., "answer": "the steps #### 12"}, GSM8K's form; whole numbers, nothing below 0.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

NUM_ROWS = 200
NAMES = (
    "Amina",
    "Bo",
    "Carla",
    "Dmitri",
    "Elif",
    "Farid",
    "Grace",
    "Hana",
    "Ivo",
    "Jun",
    "Kofi",
    "Lena",
    "Mateo",
    "Nora",
)
THINGS = ("apples", "pencils", "stickers", "marbles", "books", "shells", "coins", "cards", "buttons", "stamps")
BOXES = ("boxes", "bags", "shelves", "baskets")
Problem = tuple[str, str, int]
"""Question, steps, answer."""


def gets_more(rng: random.Random, name: str, thing: str) -> Problem:
    a, b = rng.randint(2, 40), rng.randint(2, 40)
    return (
        f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?",
        f"{a} + {b} = {a + b}",
        a + b,
    )


def gives_away(rng: random.Random, name: str, thing: str) -> Problem:
    b, left = rng.randint(2, 30), rng.randint(1, 30)
    a = b + left
    return f"{name} had {a} {thing} and gave {b} of them away. How many {thing} are left?", f"{a} - {b} = {left}", left


def fills_boxes(rng: random.Random, name: str, thing: str) -> Problem:
    n, each, box = rng.randint(2, 9), rng.randint(2, 12), rng.choice(BOXES)
    question = f"{name} fills {n} {box} with {each} {thing} each. How many {thing} is that in all?"
    return question, f"{n} x {each} = {n * each}", n * each


def shares(rng: random.Random, name: str, thing: str) -> Problem:
    n, each = rng.randint(2, 9), rng.randint(2, 12)
    question = f"{name} shares {n * each} {thing} equally among {n} friends. How many {thing} does each friend get?"
    return question, f"{n * each} / {n} = {each}", each


def buys_and_loses(rng: random.Random, name: str, thing: str) -> Problem:
    n, each = rng.randint(2, 6), rng.randint(3, 10)
    lost = rng.randint(1, n * each - 1)
    left = n * each - lost
    question = (
        f"{name} buys {n} packs of {each} {thing} and loses {lost} of them. How many {thing} does {name} still have?"
    )
    return question, f"{n} x {each} = {n * each}; {n * each} - {lost} = {left}", left


def compares(rng: random.Random, name: str, thing: str) -> Problem:
    a, more = rng.randint(3, 30), rng.randint(2, 15)
    other = rng.choice([candidate for candidate in NAMES if candidate != name])
    question = f"{name} has {a} {thing}. {other} has {more} more than {name}. How many {thing} do they have together?"
    return question, f"{a} + {more} = {a + more}; {a} + {a + more} = {2 * a + more}", 2 * a + more


KINDS: tuple[Callable[[random.Random, str, str], Problem], ...] = (
    gets_more, gives_away, fills_boxes, shares, buys_and_loses, compares
)  # fmt: skip


def make(num_rows: int) -> list[dict[str, str]]:
    """Distinct questions, the kinds in turn."""
    rng, rows = random.Random(20), dict[str, str]()
    while len(rows) < num_rows:
        question, steps, answer = KINDS[len(rows) % len(KINDS)](rng, rng.choice(NAMES), rng.choice(THINGS))
        rows.setdefault(question, f"{steps} #### {answer}")
    return [{"question": question, "answer": answer} for question, answer in rows.items()]


def main() -> None:
    lines = [json.dumps(row) + "\n" for row in make(NUM_ROWS)]
    Path(__file__).with_name("word_problems.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
