"""Prints what a run's newest memory holds, and the stored episodes nearest to a question."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.launch.environment import apply_environment
from cluster.record.checkpoint import newest_checkpoint
from cluster.record.memory_effect import WINDOW_UPDATES, effect_text, memory_effect
from cluster.record.run_view import RunView, read_run
from contracts.errors import ConfigError
from memory_service.encoder import load_encoder
from memory_service.service import EpisodicMemory


def load_memory(run: RunView) -> EpisodicMemory:
    """Raises ConfigError if the run kept no memory."""
    if not run.config.memory.enabled:
        raise ConfigError(f"{run.path} ran with memory.profile = 'off': there is no memory to look into")
    checkpoint = newest_checkpoint(run.path)
    if checkpoint is None:
        raise ConfigError(
            f"{run.path} has no checkpoint, which is what is looked into: the first is written before the first update"
        )
    apply_environment(run.config.cluster.env)
    memory = EpisodicMemory(
        run.config.memory, load_encoder(run.config.memory), value_of_correct=run.config.value_of_correct
    )
    memory.restore(next((checkpoint / "memory").glob("snapshot-*")))
    return memory


def show_inspect(console: Console, run_path: Path) -> None:
    """Prints what a run's newest memory holds and how near its questions are to each other. Raises MemrError as
    `load_memory` does."""
    run = read_run(run_path)
    contents = load_memory(run).contents()
    console.print(Text.assemble((str(run.path), "bold"), f": memory version {contents.memory_version}"))
    table = Table("", "questions", "responses", box=None, header_style="bold")
    table.add_row("success", str(contents.success_queries), str(contents.successes))
    table.add_row("failure", str(contents.failure_queries), str(contents.failures))
    console.print(table)
    console.print("\ndistance (1 - cosine) of each stored question to its nearest other question")
    peak = max(contents.nearest_distance_counts, default=0) or 1
    for low, high, count in zip(
        contents.nearest_distance_edges[:-1],
        contents.nearest_distance_edges[1:],
        contents.nearest_distance_counts,
        strict=True,
    ):
        console.print(f"  {low:.2f}-{high:.2f}  {count:>6}  {'█' * round(40 * count / peak)}")
    if run.metrics:
        effect = memory_effect(run.metrics[-WINDOW_UPDATES:])
        console.print(f"\n{effect_text(effect, pays=run.config.memory.pays)}", soft_wrap=True)


def show_query(console: Console, run_path: Path, text: str, k: int) -> None:
    """Prints the k stored episodes nearest to a question, with their distance (1 - cosine) and outcome."""
    neighbours = load_memory(read_run(run_path)).query(text, k)
    table = Table("distance", "", "question", "response", box=None, header_style="bold")
    for neighbour in neighbours:
        outcome = Text("right", "green") if neighbour.correct else Text("wrong", "red")
        table.add_row(
            f"{1 - neighbour.cosine:.3f}", outcome, neighbour.question.strip(), neighbour.response.strip()[:300]
        )
    console.print(table if neighbours else "the memory is empty")
