"""What is said of tokens is right for rollouts of several turns, and what is kept of them is counted."""

from typing import Any

import pytest

from actors.engines.scripted.char_tokenizer import CharTokenizer
from cluster.config.run_config import RunConfig
from cluster.config.turn_tokens import most_reply_tokens
from cluster.launch.context_budget import reply_tokens
from cluster.launch.plan import make_plan, plan_rows
from cluster.watch.resources.projection import first_footprint, memory_bytes

LETTERS = CharTokenizer("".join(map(chr, range(32, 127))) + "\n")
RETRY = {"environment": "retry", "max_turns": 4}
OWN = {"kind": "mine.py:Game"}


def config_of(**task: Any) -> RunConfig:
    actors = {"max_new_tokens": 32, "rollouts_per_group": 8, "engine": "scripted"}
    return RunConfig.model_validate(
        {"model": {"name": "scripted"}, "task": task, "actors": actors, "cluster": {"groups_per_batch": 8}}
    )


def said(config: RunConfig) -> dict[str, str]:
    return dict(plan_rows(config, make_plan(config)))


def test_one_turn_is_told_as_one() -> None:
    rows = said(config_of())
    assert rows["task"].endswith("at most 32 tokens")
    assert rows["one update"] == "8 problems x 8 rollouts = 64 rollouts, at most 2,048 tokens"


def test_of_several_turns_the_limit_is_the_policys_over_all_and_replies_come_on_top() -> None:
    rows = said(config_of(**RETRY))
    assert rows["task"].endswith("at most 32 tokens in all of up to 4 turns, beside the environment's replies")
    assert "at most 2,048 tokens that the policy writes, and 192 replies with at most" in rows["one update"]


def test_of_a_users_task_nobody_knows_yet_and_that_is_said() -> None:
    rows = said(config_of(**OWN))
    assert "32 tokens (in all turns together, if it has several, beside its replies)" in rows["task"]
    assert rows["one update"].endswith("beside what your task's environment replies, if it has one")


def test_the_bound_holds_where_each_character_is_a_token() -> None:
    assert most_reply_tokens(config_of(**RETRY)) >= reply_tokens(config_of(**RETRY), LETTERS) > 0
    assert most_reply_tokens(config_of()) == 0


@pytest.mark.parametrize("task", [RETRY, OWN])
def test_memory_and_log_have_room_for_replies_too(task: dict[str, Any]) -> None:
    one, several = config_of(), config_of(**task)
    more = most_reply_tokens(several)
    episodes = one.learner.num_updates * 64
    assert memory_bytes(several) - memory_bytes(one) == episodes * 4 * more
    footprints = [first_footprint(1000, config) for config in (one, several)]
    assert footprints[1].rollouts_bytes_per_group - footprints[0].rollouts_bytes_per_group == 8 * 13 * more


def test_memorys_share_is_told_in_a_unit_that_shows_it() -> None:
    small = RunConfig.model_validate(
        {
            "model": {"name": "scripted"},
            "actors": {"engine": "scripted", "max_new_tokens": 8, "rollouts_per_group": 2},
            "learner": {"num_updates": 1},
            "cluster": {"groups_per_batch": 2},
        }
    )
    assert said(small)["memory"].endswith("KiB")
