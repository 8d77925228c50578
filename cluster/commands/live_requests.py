"""`memr scale` and `memr stop`: what is asked of a live run, checked here as far as its files tell, then by the run itself."""

from pathlib import Path

from cluster.config.run_config import load_config
from cluster.config.run_folder import refuse_other_than_run
from cluster.record.requests import ask
from contracts.errors import ConfigError


def scale_run(run_path: Path, workers: int, pool: str | None) -> str:
    """What to tell the user. Raises ConfigError for a pool that the run does not have, and where the run refuses."""
    refuse_other_than_run(run_path)
    pools = list(load_config(run_path / "config.toml").actors.by_pool)
    if pool is not None and pool not in pools:
        raise ConfigError(f"--pool {pool}: {run_path} has {_named(pools)}")
    ask(run_path, ask="scale", workers=workers, pool=pool)
    of_pool = f" of pool '{pool or pools[0]}'" if len(pools) > 1 else ""
    return f"asked for {workers} workers{of_pool}; `memr status {run_path}` shows them come and go"


def stop_run(run_path: Path) -> str:
    """What to tell the user."""
    refuse_other_than_run(run_path)
    ask(run_path, ask="stop")
    return f"{run_path} finishes its update, writes a checkpoint and ends"


def _named(pools: list[str]) -> str:
    listed = ", ".join(f"'{pool}'" for pool in pools)
    return f"the pools {listed}" if len(pools) > 1 else f"one pool, {listed}"
