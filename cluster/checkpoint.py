"""A checkpoint: learner and memory of one step in one folder, written whole or not at all.

    checkpoints/step-000120/learner/  memory/  checkpoint.json (last)

Under a temporary name first, then one rename; a folder without checkpoint.json is no checkpoint.
"""

import asyncio
import json
import shutil
from pathlib import Path

from cluster.parts import Parts


async def save_checkpoint(run_path: Path, step: int, parts: Parts) -> Path:
    """Returns the folder. Learner and memory write side by side."""
    folder = run_path / "checkpoints" / f"step-{step:06d}"
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    saves = [parts.learner.save(temporary / "learner")]
    if parts.memory is not None:
        saves.append(_save_memory(parts, temporary))
    await asyncio.gather(*saves)
    (temporary / "checkpoint.json").write_text(json.dumps({"step": step, "memory": parts.memory is not None}))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


async def _save_memory(parts: Parts, directory: Path) -> None:
    assert parts.memory is not None
    await parts.memory.save(directory / "memory")


def newest_checkpoint(run_path: Path) -> Path | None:
    folders = sorted(p for p in (run_path / "checkpoints").glob("step-*") if (p / "checkpoint.json").exists())
    return folders[-1] if folders else None
