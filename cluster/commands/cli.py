"""The command line: `memr` and `python -m cluster`.

Thin: each command parses its arguments, calls one function of the module that does the work, shows the
result. Heavy imports happen inside the commands, so that `memr --help` answers at once.
Exit codes: exit_codes.py.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.exit_codes import run_command
from cluster.commands.memory_commands import memory_app
from cluster.commands.options import (
    AddressOption,
    ConfigArgument,
    RunArgument,
    SetOption,
    ShowVersion,
    UnsetOption,
    VersionOption,
)
from cluster.launch.environment import apply_environment, prepare_environment
from cluster.watch.terminal import terminal
from contracts.errors import ConfigError

if TYPE_CHECKING:
    pass

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Train small language models to reason, with reinforcement learning and a shared episodic memory.

    Rollout workers sample answers, the memory service adds intrinsic reward for answers like past successes
    (exploit) and unlike past failures (explore), the learner turns both into LoRA updates. All three work
    at the same time, each in its own process.

    Start here:  [bold]memr train configs/quickstart.toml[/bold]
    Then:  memr status RUN, memr report RUN, memr memory query RUN "a question", memr export RUN OUT""",
)
app.add_typer(memory_app, name="memory")


@app.callback()
def options(version: ShowVersion = False) -> None:
    """Holds the options of `memr` itself, before any command."""


@app.command()
def train(
    config: ConfigArgument,
    overrides: SetOption = None,
    unset: UnsetOption = None,
    address: AddressOption = None,
    ship_code: Annotated[
        bool, typer.Option("--ship-code", help="With --address: send memr's code to nodes that do not have it")
    ] = False,
    override: Annotated[
        bool, typer.Option("--override", help="Resume a run although settings changed that make it another run")
    ] = False,
) -> None:
    """Train: workers, memory and learner side by side, evaluation before, during and after.

    A run directory that is there already is resumed where it stood, as by `memr resume`.

    Everything lands in runs/NAME: metrics, evaluations, transcripts, adapters, checkpoints, report.
    Ctrl-C finishes the update under way, writes a checkpoint, and exits with 130.
    """
    from cluster.commands.summary import show_overridden
    from cluster.commands.supervise import supervise
    from cluster.config.run_config import load_config
    from cluster.launch.ray_address import refuse_unreachable
    from cluster.record.run_dir import refuse_live_run, refuse_rest_of_run
    from cluster.record.run_lock import lock_run

    settings = load_config(config, overrides or [], unset or [])
    show_overridden(terminal(), overrides or [])
    if address is not None:
        refuse_unreachable(address)
    chosen = [text for value in overrides or [] for text in ("--set", value)]
    chosen += [text for key in unset or [] for text in ("--unset", key)]
    flags = [*(["--address", address] if address else []), *(["--ship-code"] * ship_code), *(["--override"] * override)]
    with lock_run(settings.run_path) as lock:  # before anything is written, and until everything is
        refuse_live_run(settings.run_path)
        refuse_rest_of_run(settings.run_path)
        code = supervise(settings, ["attempt", str(config), *chosen, *flags, "--lock", str(lock)], lock)
    if code:
        raise typer.Exit(code)


@app.command(hidden=True)
def attempt(
    config: ConfigArgument,
    overrides: SetOption = None,
    unset: UnsetOption = None,
    address: Annotated[str | None, typer.Option()] = None,
    ship_code: Annotated[bool, typer.Option("--ship-code")] = False,
    override: Annotated[bool, typer.Option("--override")] = False,
    lock: Annotated[int | None, typer.Option("--lock")] = None,
    supervisor: Annotated[int, typer.Option("--supervisor")] = 0,
) -> None:
    """What `memr train` starts and watches: the run's own process, which the supervisor may start again."""
    from cluster.config.run_config import load_config

    settings = load_config(config, overrides or [], unset or [])
    apply_environment(settings.cluster.env)
    from cluster.launch.train import train as train_run
    from cluster.recovery.run_process import supervised

    def life() -> int:
        outcome = train_run(
            settings, terminal(), address, ship_code=ship_code, override=override, supervisor=supervisor, lock=lock
        )
        return outcome.exit_code

    code = supervised(life, settings.run_path, settings.supervision.stop_s, supervisor)
    if code:
        raise typer.Exit(code)


@app.command()
def resume(
    run: RunArgument,
    overrides: SetOption = None,
    unset: UnsetOption = None,
    address: AddressOption = None,
    override: Annotated[bool, typer.Option("--override", help="Although settings changed")] = False,
) -> None:
    """Resume a run that was stopped or killed, exactly where it stood: no rollout is sampled or trained twice."""
    from cluster.record.run_view import read_run

    if elsewhere := [text for text in overrides or [] if text.split("=")[0].strip() in ("run.name", "run.directory")]:
        raise ConfigError(
            f"--set {elsewhere[0]}: `memr resume` goes on in the folder that it is given, {run}. To go on under another name "
            "rename or copy the folder and resume that; for a new run: `memr train CONFIG --set run.name=NAME`"
        )
    read_run(run)
    where = {"run.directory": str(run.resolve().parent), "run.name": run.resolve().name}
    place = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in where.items()]
    train(run / "config.toml", [*place, *(overrides or [])], unset, address, override=override)


@app.command()
def plan(
    config: ConfigArgument,
    overrides: SetOption = None,
    unset: UnsetOption = None,
    address: Annotated[
        str | None, typer.Option(metavar="auto|HOST:PORT", help="Plan for this Ray cluster instead of this machine")
    ] = None,
    nodes: Annotated[
        str | None, typer.Option(metavar="NxG", help="Plan for N nodes of G GPUs each, for example 2x8, there or not")
    ] = None,
) -> None:
    """Show what a configuration amounts to and who gets what, without starting anything."""
    from cluster.commands.summary import show_overridden, show_placement, show_plan
    from cluster.config.run_config import load_config
    from cluster.launch.nodes import resources_of

    console, settings = terminal(), load_config(config, overrides or [], unset or [])
    there = resources_of(address, nodes)
    show_overridden(console, overrides or [])
    show_plan(console, settings)
    if not show_placement(console, settings, there):
        raise typer.Exit(2)
    settings.learner.refuse_cut_cap()
    settings.actors.refuse_group_of_one()


@app.command()
def scale(
    run: RunArgument,
    workers: Annotated[int, typer.Option(min=0, help="How many rollout workers the pool shall have")],
    pool: Annotated[str | None, typer.Option(help="Name of one of \\[\\[actors.pools]]; default: the first")] = None,
) -> None:
    """Add or remove rollout workers while a run goes on: new ones join, surplus ones finish what they have and leave."""
    from cluster.commands.live_requests import scale_run

    terminal().print(scale_run(run, workers, pool), soft_wrap=True)


@app.command()
def stop(run: RunArgument) -> None:
    """End a live run as Ctrl-C does: the update under way is finished, a checkpoint is written."""
    from cluster.commands.live_requests import stop_run

    terminal().print(stop_run(run), soft_wrap=True)


@app.command()
def status(run: RunArgument) -> None:
    """Where a run stands: live, finished, dead or copied from elsewhere."""
    from cluster.commands.summary import show_status
    from cluster.record.run_view import read_run

    show_status(terminal(), read_run(run))


@app.command()
def replay(run: RunArgument) -> None:
    """Recompute every intrinsic reward of a run from its log and say how far they are from what it trained on."""
    from cluster.commands.replay import replay_run

    found = replay_run(run)
    console = terminal()
    console.print(
        f"{found.rollouts} rollouts in {found.calls} calls of memory: largest difference {found.largest_difference:g}",
        soft_wrap=True,
    )
    if found.worst:
        console.print(f"at {found.worst}; another machine, encoder or data type rounds differently", soft_wrap=True)
        raise typer.Exit(3)


@app.command()
def report(run: RunArgument) -> None:
    """Write RUN/report.html: rewards, held-out accuracy, lengths, lag, memory, transcripts with neighbours."""
    from cluster.commands.report import write_report

    terminal().print(f"wrote {write_report(run)}", soft_wrap=True)


@app.command(name="eval")
def evaluate(
    target: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run directory, or a model's name or folder")],
    config: Annotated[Path | None, typer.Option(help="Configuration with the task, where MODEL is given")] = None,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems")] = 200,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Answer limit; default: as in the configuration")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="1: greedy accuracy; more: pass@SAMPLES")] = 1,
    policy_version: VersionOption = None,
    overrides: SetOption = None,
    unset: UnsetOption = None,
) -> None:
    """Held-out accuracy of one of a run's adapters, or of a model as it is."""
    from cluster.commands.evaluate import EvalRequest, evaluate_target
    from cluster.watch.console import eval_text
    from tasks.task_data import too_few

    request = EvalRequest(problems, max_new_tokens, samples)
    line = evaluate_target(target, request, config, overrides or [], unset or [], policy_version)
    for note in too_few(line["n"], problems, "--problems"):
        terminal().print(f"note: {note}", soft_wrap=True)
    terminal().print(eval_text(line), soft_wrap=True)


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write")],
    merge: Annotated[
        bool, typer.Option(help="The whole model with the adapter merged in, instead of the adapter")
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(metavar="float32|bfloat16|float16", help="With --merge: data type of the file; float32 is exact"),
    ] = "float32",
    policy_version: VersionOption = None,
) -> None:
    """Write one of a run's adapters (PEFT), or the merged model, with its tokenizer, for plain transformers."""
    from cluster.commands.export import export_run

    said = export_run(run, out, merge=merge, dtype=dtype, policy_version=policy_version)
    terminal().print(said, soft_wrap=True)


@app.command(name="check-task")
def check_task(config: ConfigArgument, overrides: SetOption = None, unset: UnsetOption = None) -> None:
    """Run known good and known bad answers through the real verifier; show problems, prompt lengths, rewards."""
    from cluster.config.run_config import load_config

    settings = load_config(config, overrides or [], unset or [])
    apply_environment(settings.cluster.env)
    from cluster.commands.check_task import run_task_check

    if not run_task_check(terminal(), settings):
        raise typer.Exit(3)


@app.command()
def doctor() -> None:
    """Check this machine: versions, cores, memory, disk, shared memory, GPU, models at hand."""
    from cluster.commands.doctor import examine, show

    if not show(terminal(), examine()):
        raise typer.Exit(3)


def main() -> None:
    """Entry point."""
    prepare_environment(sys.argv[1:])
    run_command(app, next(iter(sys.argv[1:]), ""))
