"""Formulas of the intrinsic terms: by name, and of the user's own as `FILE.py:name`."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config.run_config import load_config
from contracts.errors import ConfigError
from contracts.reports import MemoryReport
from contracts.rollout import RolloutGroup, ScoredGroup
from loading.dotted_path import load_dotted
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder
from memory_service.formulas import Compared, explore_formula, refuse_missing
from memory_service.service import EpisodicMemory
from tests.fakes import FakeMemory, make_group
from tests.harness import Run, make_config

CODE = """
    import math

    def near_the_mean(compared):
        centre = compared.known_BD.mean(axis=0)
        return [-math.sqrt(sum((a - c) ** 2)) for a, c in zip(compared.answers_ND, centre[None].repeat(len(compared.answers_ND), 0))]

    def unlike(compared):
        return [1 - max(float(a @ b) / math.sqrt((a @ a) * (b @ b)) for b in compared.known_BD) for a in compared.answers_ND]

    def third(compared):
        found = []
        for a in compared.answers_ND:
            distances = sorted(math.sqrt(sum((a - b) ** 2)) for b in compared.known_BD)
            found.append(math.log(1 + distances[min(3, len(distances)) - 1]))
        return found

    def overwrites(compared):
        compared.answers_ND[:] = compared.known_BD[0]
        return unlike(compared)

    def raises(compared):
        return compared.answers

    def one_short(compared):
        return [0.0] * (len(compared.answers_ND) - 1)

    def infinite(compared):
        return [math.inf for _ in compared.answers_ND]

    def words(compared):
        return ["far" for _ in compared.answers_ND]

    def seventh_raises(compared):
        calls.append(1 / (7 - len(calls)))
        return unlike(compared)

    def places(compared):
        seen.append((compared.question_B.tolist(), compared.cosine_Q.tolist(), compared.policy_version))
        return compared.cosine_Q[compared.question_B][:1].repeat(len(compared.answers_ND))

    seen, calls = [], []
"""
PAYS: dict[str, Any] = {"profile": "memr", "neighbours_k": 3, "max_responses_per_query": 5}


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(CODE))
    return str(file)


def scores(**settings: Any) -> list[ScoredGroup]:
    """Of 30 groups on 6 questions, through the whole service."""
    random = np.random.default_rng(0)
    groups = [
        make_group(
            lease,
            rewards=[float(random.random() < 0.4) for _ in range(4)],
            question=f"question {random.integers(6)}",
            version=lease // 10,
        )
        for lease in range(30)
    ]
    return EpisodicMemory(MemorySettings(**PAYS | settings), HashEncoder(32)).score(groups)


def assert_equal(found: list[ScoredGroup], expected: list[ScoredGroup]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("exploit_G", "explore_G", "bonus_G"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)
    assert sum(len(set(one.bonus_G.tolist())) > 1 for one in found) > 10, (
        "groups in which the bonus tells answers apart"
    )


@pytest.mark.parametrize("form", [{}, {"exploit_form": "one_minus_scaled_distance"}, {"raw_decimals": "off"}])
@pytest.mark.parametrize("order", ["read_then_write", "write_then_read"])
def test_a_formula_of_the_users_that_is_one_of_ours_gives_its_rewards(
    mine: str, order: str, form: dict[str, Any]
) -> None:
    given = form | {"order": order, "own_group_as_neighbours": order == "write_then_read"}
    if form.get("raw_decimals") == "off":
        given |= {"normaliser_range_floor": 0.05}  # above float32's noise, which theirs does not share
    theirs = scores(exploit_formula=f"{mine}:near_the_mean", explore_formula=f"{mine}:unlike", **given)
    assert_equal(theirs, scores(**given))


def test_knn_entropy_is_the_logarithm_of_one_plus_the_third_distance(mine: str) -> None:
    assert_equal(scores(explore_formula="knn_entropy"), scores(explore_formula=f"{mine}:third"))
    four = scores(explore_formula="knn_entropy")
    assert any(not np.allclose(a.explore_G, b.explore_G) for a, b in zip(four, scores(), strict=True))


def test_knn_entropy_by_hand() -> None:
    """Failures 1, 2 and 5 away from the first answer, 4, 3 and 0 from the second; of two, the farther counts."""
    answers, known = np.array([[0.0], [5.0]]), np.array([[1.0], [2.0], [5.0]])
    formula = explore_formula(MemorySettings(explore_formula="knn_entropy"))
    of_three = Compared(answers, known, np.zeros(3, np.int64), np.ones(1), 0)
    np.testing.assert_allclose(formula(of_three), [math.log(6), math.log(5)])
    of_two = Compared(answers, known[:2], np.zeros(2, np.int64), np.ones(1), 0)
    np.testing.assert_allclose(formula(of_two), [math.log(3), math.log(5)])


@pytest.mark.parametrize("decimals", [9, "off"])
def test_what_a_formula_writes_into_its_input_reaches_no_memory(mine: str, decimals: Any) -> None:
    def stored(explore: str) -> list[float]:
        settings = MemorySettings(**PAYS, explore_formula=explore, raw_decimals=decimals)
        memory = EpisodicMemory(settings, HashEncoder(32))
        memory.score([make_group(lease, question="q") for lease in range(3)])
        return [float(episode.vector_D.sum()) for query in memory._terms["explore"].store for episode in query.episodes]

    assert stored(f"{mine}:overwrites") == stored(f"{mine}:unlike") != []


def test_a_formula_hears_which_question_each_response_is_of(mine: str) -> None:
    memory = EpisodicMemory(MemorySettings(**PAYS, explore_formula=f"{mine}:places"), HashEncoder(32))
    memory.score([make_group(0, rewards=[0.0, 0.0], question="aaa bbb", version=4)])
    memory.score([make_group(1, rewards=[0.0], question="aaa bbb ccc", version=4)])
    memory.score([make_group(2, rewards=[0.0], question="aaa bbb", version=5)])
    *_, (questions, cosines, version) = load_dotted(f"{mine}:places", "").__globals__["seen"]
    assert (questions, version) == ([0, 0, 1], 5)
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", r"memory.explore_formula '.*mine.py:raises' failed at .*mine.py:23 \(AttributeError\)"),
        (
            "one_short",
            r"mine.py:25 \(list\): it returned \[0.0\]; it must return 2 finite numbers, one for each answer",
        ),
        ("infinite", r"mine.py:28 \(list\): it returned \[inf, inf\]"),
        ("words", r"mine.py:31 \(list\): it returned \['far', 'far'\]"),
    ],
)
def test_a_formula_that_returns_nonsense_ends_the_run_with_its_line(mine: str, name: str, told: str) -> None:
    memory = EpisodicMemory(MemorySettings(**PAYS, explore_formula=f"{mine}:{name}"), HashEncoder(32))
    memory.score([make_group(0)])  # nothing to compare yet: it is not asked
    with pytest.raises(ConfigError, match=told):
        memory.score([make_group(1)])


class RealMemory(FakeMemory):
    """The handle of a memory with settings of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.service = EpisodicMemory(MemorySettings(**settings), HashEncoder(32))

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        return self.service.score(groups), self.service.report()


async def test_a_run_whose_formula_fails_ends_with_its_line_and_the_updates_before_it(
    mine: str, tmp_path: Path
) -> None:
    """What failed is in no update; the updates before it stand."""
    run = Run(make_config(tmp_path), memory=RealMemory(**PAYS, explore_formula=f"{mine}:seventh_raises"))
    with pytest.raises(ConfigError, match=r"mine.py:\d+ \(ZeroDivisionError\)"):
        await run.run()
    assert [line["step"] for line in run.lines("metrics.jsonl")] == [1, 2]


def test_a_misspelt_formula_is_refused_before_anything_is_loaded(mine: str) -> None:
    with pytest.raises(ConfigError, match=r"memory.exploit_formula = .* has no 'unlke'. Did you mean 'unlike'\?"):
        refuse_missing(MemorySettings(exploit_formula=f"{mine}:unlke"))


def test_a_path_is_relative_to_the_configuration(mine: str) -> None:
    file = Path(mine).with_name("c.toml")
    file.write_text('[memory]\nprofile = "memr"\nexplore_formula = "mine.py:unlike"\n')
    assert load_config(file).memory.explore_formula == f"{mine}:unlike"
    file.write_text('[memory]\nprofile = "memr"\nexplore_formula = "knn"\n')
    with pytest.raises(ConfigError, match=r"memory.explore_formula: .*'knn_entropy'.*\(given: 'knn'\)"):
        load_config(file)


def test_a_snapshot_is_the_same_whoever_named_the_formula(mine: str, tmp_path: Path) -> None:
    def saved(name: str, folder: str) -> dict[str, bytes]:
        memory = EpisodicMemory(MemorySettings(**PAYS, explore_formula=name), HashEncoder(32))
        memory.score([make_group(lease, question=f"q{lease % 2}") for lease in range(6)])
        snapshot = tmp_path / folder / memory.save(tmp_path / folder)
        return {path.name: path.read_bytes() for path in snapshot.iterdir()}

    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = saved("knn_entropy", "ours"), saved(f"{mine}:third", "theirs")
    assert ours.keys() == theirs.keys()
    assert ours == theirs
