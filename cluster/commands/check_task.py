"""`memr check-task`: known good and known bad answers through the real verifier path, shown to a person."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.load import load_worker_tokenizer
from cluster.config.run_config import RunConfig
from cluster.launch.first_look import refuse_missing_files
from cluster.launch.model_store import model_of
from contracts.verdict import Scored, Verdict
from tasks.check_task import TaskCheckReport, check_task
from tasks.load import load_task, make_verifier
from tasks.prompts import HfTokenizer

NUM_SHOWN = 8


def run_task_check(console: Console, config: RunConfig) -> bool:
    """Shows problems, prompt lengths and rewards; True if every known answer was judged as it should be."""
    config.actors.refuse_group_of_one()
    refuse_missing_files(config)
    model_path = model_of(config)
    tokenizer = load_worker_tokenizer(config.actors, model_path)
    for note in tokenizer.notes if isinstance(tokenizer, HfTokenizer) else ():
        console.print(Text.assemble(("note", "yellow"), f"  {note}"), soft_wrap=True)
    verifier = make_verifier(config.task)
    try:
        report = check_task(load_task(config.task), verifier, tokenizer, config.task, num_held_out=config.eval.problems)
    finally:
        verifier.close()
    _show(console, report)
    return report.ok


def _show(console: Console, report: TaskCheckReport) -> None:
    console.print(f"{report.data.counts}; answers tried on {len(report.problems)}")
    for note in (*report.data.notes, *(report.prompt_lengths.notes if report.prompt_lengths else ())):
        console.print(Text.assemble(("note", "yellow"), f"  {note}"), soft_wrap=True)
    if lengths := report.prompt_lengths:
        console.print(f"prompt tokens: {lengths.min} to {lengths.max}, {lengths.mean:.0f} on average")
    if report.without_reference:
        console.print(f"{report.without_reference} problems have no reference answer to check with")
    table = Table("question", "reference", "kind of answer", "answer", "verdict", box=None, header_style="bold")
    for judged in report.judged[:NUM_SHOWN]:
        question = judged.problem.question.strip()[:60]
        table.add_row(question, judged.problem.answer, judged.kind, judged.text[:40], _verdict_text(judged.verdict))
    console.print(table)
    for fault in report.faults:
        console.print(Text.assemble(("note", "yellow"), f"  {fault}"), soft_wrap=True)
    for failure in report.failures:
        console.print(Text.assemble(("no", "red"), f"  {failure}"), soft_wrap=True)
    if report.ok:
        console.print(
            Text.assemble(("ok", "green"), f"  all {len(report.judged)} known answers were judged as they should be")
        )


def _verdict_text(verdict: Verdict) -> str:
    if not isinstance(verdict, Scored):
        return f"invalid: {verdict.reason}"
    parts = ", ".join(f"{name} {value:g}" for name, value in verdict.parts.items())
    return f"{'right' if verdict.correct else 'wrong'}, reward {verdict.value:g} ({parts})"
