"""`memr scale` and `memr stop` do what they say or refuse with exit code 2 and the reason: nothing is "asked" in vain."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.live_requests import scale_run, stop_run
from cluster.config.run_config import RunConfig
from cluster.config.run_folder import refuse_other_than_run
from cluster.flow.scaling_policy import Waits
from cluster.handles import Shortages
from cluster.launch.placement import Node, place, shortages_of
from cluster.record.requests import RunControl
from cluster.record.run_dir import create_run
from contracts.errors import ConfigError
from tests.harness import Run, make_config

POOLS = [{"name": "big", "num_workers": 1}, {"name": "small", "num_workers": 1}]


def created(tmp_path: Path, **sections: Any) -> RunConfig:
    config = make_config(tmp_path, **sections)
    create_run(config, {})
    return config


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"actors": {"pools": POOLS}}, r"--pool nope: .* has the pools 'big', 'small'"),
        ({}, r"--pool nope: .* has one pool, 'worker'"),
    ],
)
def test_a_pool_that_is_not_there_is_refused_with_those_that_are(
    sections: dict[str, Any], told: str, tmp_path: Path
) -> None:
    config = created(tmp_path, **sections)
    with pytest.raises(ConfigError, match=told):
        scale_run(config.run_path, 2, "nope")


@pytest.mark.parametrize("ask", [lambda path: scale_run(path, 2, None), stop_run])
def test_a_run_that_is_not_live_is_asked_for_nothing(ask: Any, tmp_path: Path) -> None:
    config = created(tmp_path)
    with pytest.raises(ConfigError, match="takes no requests: it is not running"):
        ask(config.run_path)
    with pytest.raises(ConfigError, match=r"nothing is not a run"):
        ask(tmp_path / "nothing")


async def test_what_the_live_run_refuses_is_told_to_who_asked(tmp_path: Path) -> None:
    config = created(tmp_path, cluster={"min_workers": 1})
    run = Run(config)
    control = asyncio.ensure_future(RunControl(run.path, run.recorder, run.controller).run())
    await asyncio.sleep(0)
    with pytest.raises(ConfigError, match=r"refuses: 0 workers in all, cluster\.min_workers is 1"):
        await asyncio.to_thread(scale_run, run.path, 0, None)
    assert "asked for 3 workers;" in await asyncio.to_thread(scale_run, run.path, 3, None)
    assert run.controller.fleet.target == 3
    control.cancel()
    run.close()


def with_shortages(run: Run, shortages: Shortages) -> None:
    run.controller.fleet._services = replace(run.controller.fleet._services, shortages=shortages)


def test_more_workers_than_can_be_placed_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    """Two cards, one of them the learner's: beside the worker that runs there is room for none."""
    config = RunConfig.model_validate({"model": {"name": "m"}, "actors": {"engine": "vllm"}})
    nodes = [Node("n0", 64.0, 2.0, 2**36)]
    placement = place(config, nodes)
    run = Run(make_config(tmp_path))
    with_shortages(run, lambda counts: shortages_of(placement, counts, nodes))
    with pytest.raises(ConfigError, match=r"needs 3 GPUs \(learner: 1 x 1, worker: 2 x 1\), the cluster has 2"):
        run.controller.fleet.scale(2)
    with pytest.raises(ConfigError, match=r"1,000,002 processes .* MiB each without any model, and 64 GiB of memory"):
        run.controller.fleet.scale(1_000_000)
    assert run.controller.fleet.target == 1
    run.close()


def test_workers_that_share_a_card_leave_room_for_no_more_of_their_share() -> None:
    """What runs keeps the share that it was started with, whatever a new plan would give it."""
    config = RunConfig.model_validate({"model": {"name": "m"}})
    nodes = [Node("n0", 64.0, 1.0)]
    placement = place(config, nodes)
    assert placement.bundle("worker").gpus == 0.5
    assert shortages_of(placement, {"worker": 1}, nodes) == []
    assert "needs 1.5 GPUs" in shortages_of(placement, {"worker": 2}, nodes)[0]


def test_autoscale_goes_on_with_the_workers_it_has_where_no_more_fit(tmp_path: Path) -> None:
    config = make_config(tmp_path, cluster={"autoscale": {"enabled": True}})
    quick = config.cluster.autoscale.model_copy(update={"window_updates": 1, "cooldown_updates": 1})
    cluster = config.cluster.model_copy(update={"autoscale": quick})
    run = Run(config.model_copy(update={"cluster": cluster}))
    with_shortages(run, lambda _: ["no GPU is left"])
    run.controller.stages.training.autoscaler.after_update(Waits(1, 10.0, 9.0, 0.0, 0, 8))
    [event] = [line for line in run.lines("events.jsonl") if line["event"].startswith("autoscale")]
    assert event["event"] == "autoscale_refused"
    assert "no GPU is left" in event["reason"]
    assert run.controller.fleet.target == 1
    run.close()


def test_what_is_no_run_is_told_with_the_run_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "sparse"):
        (tmp_path / "runs" / name / "adapters").mkdir(parents=True)
        for file in ("manifest.json", "config.toml", "adapters/manifest.json"):
            (tmp_path / "runs" / name / file).touch()
    for given, told in {
        "quickstart": r"no such folder\)\. Did you mean runs/quickstart\?",
        "configs/quickstart.toml": r"Did you mean runs/quickstart\?",
        "runs": r"Runs in it: runs/quickstart, runs/sparse",
        "runs/quickstrat": r"Did you mean runs/quickstart\? Runs beside it: runs/quickstart, runs/sparse",
        "runs/sparse/adapters": r"a folder of something else\)\. It lies in the run runs/sparse: give that",
        "runs/sparse/manifest.json": r"a file; a run is a folder.*It lies in the run runs/sparse",
        "runs/sparse/memory/snapshot-1": r"It lies in the run runs/sparse: give that",
        "x" * 300: r"no such folder",
    }.items():
        with pytest.raises(ConfigError, match=told):
            refuse_other_than_run(Path(given))
