"""What a live run says of itself once a second, as JSON-ready fields of status.json. Reads; changes nothing."""

from cluster.config.run_config import RunConfig
from cluster.flow.stages import Stages
from cluster.flow.worker_state import WorkerState
from cluster.record.worker_figures import WorkerFigures, fleet_fields


def status_of(stages: Stages, config: RunConfig) -> dict[str, object]:
    """`progress` changes whenever the run gets on: what the supervisor watches."""
    state, fleet, figures = stages.state, stages.fleet, stages.reports.now()
    of_all = {name: value for name, value in fleet_fields(figures).items() if name != "by_worker"}
    return {
        "step": state.step,
        "num_updates": config.learner.num_updates,
        "policy_version": state.step,
        "phase": _phase(stages, config),
        "workers": fleet.serving,
        "workers_wanted": fleet.target,
        "workers_joining": fleet.joining,
        **of_all,
        "fleet": {worker.worker_id: _worker(worker, figures.get(worker.worker_id)) for worker in fleet.workers},
        "at_workers": stages.queue.at_workers,
        "with_memory": len(stages.scoring),
        "buffered": len(stages.buffer),
        "eval_leases": stages.evaluator.open_leases,
        "progress": _progress(stages),
    }


def _worker(worker: WorkerState, figures: WorkerFigures | None) -> dict[str, object]:
    """figures: of its own reports, where it gives any."""
    told = figures.fields if figures is not None else {}
    return {"state": worker.state.value, "version": worker.version, "rollouts_in_hand": worker.rows, **told}


def _progress(stages: Stages) -> list[int]:
    memory = stages.scoring.report.memory_version if stages.scoring.report else 0
    versions = sum(worker.version for worker in stages.fleet.workers)
    return [stages.state.step, stages.outcomes.returned, memory, versions]


def _phase(stages: Stages, config: RunConfig) -> str:
    state = stages.state
    if state.stopping:
        return "stopping"
    if state.updating:
        return "updating"
    if state.step >= config.learner.num_updates:
        if stages.evaluator.open_leases:
            return "evaluating"
        return "remembering" if stages.scoring.unanswered else "done"
    return "waiting for memory" if stages.staleness.memory_alone_is_missing() else "waiting for rollouts"
