"""What somebody may do next with a run: only commands that this run, as it stands, does not refuse. Reads files alone."""

import shlex
from pathlib import Path

from cluster.config.run_config import load_config
from cluster.record.checkpoint import newest_checkpoint
from cluster.record.run_dir import others_at_work
from cluster.record.run_view import RunView
from contracts.errors import MemrError
from learner.old_checkpoint import refuse_old
from storage.arrow import read_groups

OTHER = Path("configs/word_problems.toml")
_LONGEST_QUESTION = 60


def next_steps(run: RunView) -> list[str]:
    """Command lines, quoted for a shell, the most needed first; none for a run that is at work. What stands behind a #
    says what it is for."""
    if others_at_work(run.path):  # a supervisor that shows its run's result is no other
        return []
    steps, resumes = [], _resumes(run)
    if not run.finished and resumes:
        steps.append(f"{_memr('resume', run.path)}   # goes on where it stopped")
    if run.config.memory.enabled and newest_checkpoint(run.path) is not None:
        steps.append(_memr("memory", "query", run.path, _question(run)))
    if not run.config.model.scripted and list((run.path / "adapters").glob("v*")):
        steps.append(_memr("export", run.path, _free_folder(f"{run.path.name}-model"), "--merge"))
    if run.finished and resumes and _may_grow(run):
        more = f"learner.num_updates={2 * run.config.learner.num_updates}"
        steps.append(f"{_memr('resume', run.path, '--set', more)}   # as many updates again")
    if run.finished and _is_ready(OTHER):
        steps.append(f"{_memr('train', OTHER)}   # real data from a file")
    return steps


def _memr(*words: str | Path) -> str:
    return shlex.join(["memr", *map(str, words)])


def _question(run: RunView) -> str:
    """The last line of a question that the run had, which is the question itself where a prompt has worked examples."""
    files = sorted((run.path / "rollouts").glob("*-trained-*.parquet"))
    try:
        question = read_groups(files[-1])[0].group.question.strip() if files else ""
    except MemrError:  # torn by a power cut
        question = ""
    last = question.splitlines()[-1] if question else ""
    if len(last) > _LONGEST_QUESTION:  # its end, from a whole word on
        last = last[-_LONGEST_QUESTION:].partition(" ")[2] or last[-_LONGEST_QUESTION:]
    last = last.strip()
    return "a question" if not last or last.startswith("-") else last  # a dash would begin an option


def _free_folder(name: str) -> Path:
    """Export does not write into a folder that holds something."""
    tries = (Path(name if i == 1 else f"{name}-{i}") for i in range(1, 1000))
    return next(path for path in tries if not path.exists())


def _resumes(run: RunView) -> bool:
    """Whether the learner of now goes on from the newest checkpoint."""
    newest = newest_checkpoint(run.path)
    try:
        refuse_old(newest / "learner" if newest is not None else run.path)
    except MemrError:
        return False
    return True


def _may_grow(run: RunView) -> bool:
    """Whether the learning rate of what was made does not depend on num_updates (cluster/record/resume.py)."""
    return run.config.learner.schedule == "constant" and run.config.learner.warmup_share == 0


def _is_ready(path: Path) -> bool:
    """Whether a configuration is here, and so is its data."""
    try:
        task = load_config(path).task
    except MemrError:
        return False
    return all(Path(file).is_file() for file in (task.path, task.held_out_path) if file)
