"""`memr check-task`: known good and known bad answers through the real verifier path, shown to a person."""

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.load import load_worker_tokenizer
from cluster.config.run_config import RunConfig
from cluster.launch.context_budget import find_room
from cluster.launch.early_checks import refuse_missing_files
from cluster.launch.model_store import model_of
from cluster.launch.named_methods import refuse_missing_methods
from contracts.verdict import Scored, Verdict
from tasks.check_task import ENOUGH_S, JudgedAnswer, TaskCheckReport, check_task
from tasks.load import load_task, make_verifier
from tasks.prompts import HfTokenizer

NUM_SHOWN = 2
"""Problems whose answers are shown."""
ANSWER_WIDTH = 28
"""Characters: a verdict has room beside it in a terminal of 80 columns, and in a pipe, which counts as one."""


def run_task_check(console: Console, config: RunConfig) -> bool:
    """Shows problems, prompt lengths and rewards; True if every known answer was judged as it should be."""
    config.actors.refuse_group_of_one()
    refuse_missing_files(config)
    refuse_missing_methods(config)
    model_path = model_of(config)
    tokenizer = load_worker_tokenizer(config.actors, model_path)
    for note in tokenizer.notes if isinstance(tokenizer, HfTokenizer) else ():
        console.print(Text.assemble(("note", "yellow"), f"  {note}"), soft_wrap=True)
    console.print("answers known to be good and bad go through the verifier ..", soft_wrap=True)
    verifier = make_verifier(config.task)
    try:
        report = check_task(load_task(config.task), verifier, tokenizer, config.task, num_held_out=config.eval.problems)
    finally:
        verifier.close()
    room = 0
    if report.prompt_lengths:
        room = find_room(config, tokenizer, model_path, report.prompt_lengths.max)  # as a run would, or its refusal
    show_check(console, report, room)
    return report.ok


def show_check(console: Console, report: TaskCheckReport, room: int = 0) -> None:
    """room: tokens that an engine gives the longest rollout, its prompt included; 0 where a prompt is too long."""
    console.print(f"{report.data.counts}; answers tried on {len(report.problems)}")
    if report.untried:
        text = (
            f"  judging took more than {ENOUGH_S:.0f} s, so {report.untried} problems were not tried. A scorer or reward part "
            "that hangs costs task.verifier_timeout_s for each answer of a run too"
        )
        console.print(Text.assemble(("note", "yellow"), text), soft_wrap=True)
    for note in (*report.data.notes, *(report.prompt_lengths.notes if report.prompt_lengths else ())):
        console.print(Text.assemble(("note", "yellow"), f"  {note}"), soft_wrap=True)
    if lengths := report.prompt_lengths:
        console.print(f"prompt tokens: {lengths.min} to {lengths.max}, {lengths.mean:.0f} on average")
    if report.without_reference:
        console.print(f"{report.without_reference} problems have no reference answer to check with")
    if room:
        console.print(f"a whole rollout, replies of an environment included, has room for {room} tokens")
    of_problems = [list(judged) for _, judged in groupby(report.judged, key=lambda one: one.problem.problem_id)]
    for judged in of_problems[:NUM_SHOWN]:
        _show_problem(console, judged)
    for fault in report.faults:
        console.print(Text.assemble(("note", "yellow"), f"  {fault}"), soft_wrap=True)
    for failure in report.failures:
        console.print(Text.assemble(("no", "red"), f"  {failure}"), soft_wrap=True)
    if report.ok:
        console.print(
            Text.assemble(("ok", "green"), f"  all {len(report.judged)} known answers were judged as they should be")
        )


def _show_problem(console: Console, judged: list[JudgedAnswer]) -> None:
    """The question in a line of its own, then a line for each answer to it."""
    problem = judged[0].problem
    for name, value in (("question", problem.question), ("reference", problem.answer)):
        console.print(Text.assemble((f"{name:<10} ", "bold"), _in_a_line(value)), no_wrap=True, overflow="ellipsis")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=ANSWER_WIDTH)
    table.add_column()
    for one in judged:
        table.add_row(f"  {one.kind}", Text(_in_a_line(one.text)), _verdict_text(one.verdict))
    console.print(table)


def _in_a_line(text: str) -> str:
    return text.strip().replace("\n", "\\n") or "(nothing)"


def _verdict_text(verdict: Verdict) -> str:
    if not isinstance(verdict, Scored):
        return f"invalid: {verdict.reason}"
    parts = ", ".join(f"{name} {value:g}" for name, value in verdict.parts.items())
    return f"{'right' if verdict.correct else 'wrong'}, reward {verdict.value:g} ({parts})"
