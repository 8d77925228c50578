"""Whose fault a refused version is, by what the workers of a run said of it."""

import pytest

from cluster.flow.proof_votes import REMEMBERED, Blame, ProofVotes


def votes(refused: str = "", proven: str = "") -> ProofVotes:
    """Of version 3; every letter is a worker and one vote."""
    found = ProofVotes()
    for worker in refused:
        found.refused(3, worker)
    for worker in proven:
        found.proven(3, worker)
    return found


@pytest.mark.parametrize(
    ("refused", "proven", "undecided", "blame"),
    [
        ("", "", "b", None),
        ("a", "", "", Blame.AGAIN),  # fresh bytes first
        ("a", "", "b", Blame.AGAIN),
        ("aa", "", "b", Blame.WAIT),  # b has not tried yet
        ("aa", "", "", Blame.VERSION),  # nobody else is there
        ("ab", "", "c", Blame.VERSION),  # a second worker says the same
        ("a", "b", "", Blame.AGAIN),
        ("aa", "b", "", Blame.WORKER),
        ("aabb", "c", "", Blame.WORKER),
    ],
)
def test_blame_follows_from_what_the_others_said(
    refused: str, proven: str, undecided: str, blame: Blame | None
) -> None:
    assert votes(refused, proven).blame(3, "a", undecided) is blame


def test_proving_it_after_all_takes_the_refusal_back() -> None:
    assert votes("a", "a").blame(3, "a", "") is None


def test_what_was_said_of_one_version_says_nothing_of_another() -> None:
    assert votes("aa").blame(4, "a", "") is None


def test_votes_of_old_versions_are_forgotten() -> None:
    found = votes("aa")
    for version in range(4, 4 + REMEMBERED):
        found.refused(version, "a")
    assert found.blame(3, "a", "") is None
