"""The stages of a run, wired: which object each one talks to. The picture is in controller.py."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.flow.admission import Admission
from cluster.flow.autoscaler import Autoscaler
from cluster.flow.batches import Batches
from cluster.flow.checkpoints import Checkpoints
from cluster.flow.delivery import Delivery
from cluster.flow.dispatcher import Dispatcher
from cluster.flow.evaluation_schedule import EvaluationSchedule
from cluster.flow.evaluator import Evaluator
from cluster.flow.fleet import Fleet
from cluster.flow.lease_outcomes import LeaseOutcomes
from cluster.flow.publication import Publication
from cluster.flow.quarantine import Quarantine
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_health import Health
from cluster.flow.run_state import RunState
from cluster.flow.scoring_queue import ScoringQueue
from cluster.flow.scoring_stage import ScoringStage
from cluster.flow.staleness import Staleness
from cluster.flow.step_record import StepRecord
from cluster.flow.training_loop import TrainingLoop
from cluster.flow.uninterruptible import Undivided
from cluster.flow.work_queue import WorkQueue
from cluster.flow.worker_reports import WorkerReports
from cluster.flow.worker_targets import WorkerTargets
from cluster.handles import Services
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.history import History
from cluster.record.ledger import Ledger, LedgerEvent
from cluster.record.recorder import Recorder
from contracts.ports import Task


@dataclass(frozen=True, slots=True, eq=False)
class RunInputs:
    """What a run is given: settings, problems, processes, and where it is recorded. clock: seconds, monotonic."""

    config: RunConfig
    task: Task
    services: Services
    registry: AdapterRegistry
    recorder: Recorder
    history: History
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, eq=False)
class RolloutStages:
    """Everything before the update, in the order in which a group meets it, and what runs beside it."""

    state: RunState
    ledger: Ledger
    admission: Admission
    queue: WorkQueue
    targets: WorkerTargets
    fleet: Fleet
    reports: WorkerReports
    outcomes: LeaseOutcomes
    scoring: ScoringQueue
    scoring_stage: ScoringStage
    staleness: Staleness
    buffer: RolloutBuffer
    evaluator: Evaluator
    schedule: EvaluationSchedule
    undivided: Undivided


@dataclass(frozen=True, eq=False)
class Stages(RolloutStages):
    """All stages of a run."""

    training: TrainingLoop


def wire(given: RunInputs) -> Stages:
    """Builds every stage from those that come behind it."""
    rollouts = _rollout_stages(given)
    return Stages(**vars(rollouts), training=_training_loop(given, rollouts))


def _rollout_stages(given: RunInputs) -> RolloutStages:
    config, services, recorder, registry = given.config, given.services, given.recorder, given.registry
    state, queue, undivided = RunState(), WorkQueue(), Undivided()
    lag = config.learner.max_policy_lag
    ledger = Ledger(_ledger_sink(given.history, recorder))
    buffer = RolloutBuffer(config.cluster.groups_per_batch, lag, config.cluster.buffer_bytes)
    delivery = Delivery(buffer, ledger, given.history, recorder, state, memory_on=services.memory is not None)
    scoring = ScoringQueue(services.memory, config.memory, delivery, given.clock, all_wait=lag == 0)
    staleness = Staleness(config, registry, queue, scoring, buffer)
    admission = Admission(config, given.task, ledger, queue, buffer, Quarantine(), state)
    evaluator = Evaluator(config, given.task, queue, recorder, state.changed, recorder.evaluations_done())
    outcomes = LeaseOutcomes(config.cluster, queue, ledger, scoring, evaluator, recorder, given.history, admission)
    targets = WorkerTargets(config.actors)
    dispatcher = Dispatcher(config, queue, registry, recorder, outcomes, staleness, targets, state.changed)
    fleet = Fleet(config, services, targets, dispatcher, recorder, state.changed, given.clock)
    return RolloutStages(
        state=state,
        ledger=ledger,
        admission=admission,
        queue=queue,
        targets=targets,
        fleet=fleet,
        reports=WorkerReports(fleet, given.clock),
        outcomes=outcomes,
        scoring=scoring,
        scoring_stage=ScoringStage(scoring, queue, undivided, state, in_lease_order=lag == 0),
        staleness=staleness,
        buffer=buffer,
        evaluator=evaluator,
        schedule=EvaluationSchedule(config, registry, evaluator, outcomes),
        undivided=undivided,
    )


def _training_loop(given: RunInputs, at: RolloutStages) -> TrainingLoop:
    config, recorder, registry, clock = given.config, given.recorder, given.registry, given.clock
    health = Health(config, recorder, at.state)
    return TrainingLoop(
        config=config,
        services=given.services,
        batches=Batches(at.buffer, at.ledger, registry, at.staleness, at.admission, health, recorder, at.state, clock),
        publication=Publication(config, registry, recorder, at.queue, at.evaluator, at.schedule, at.state),
        step_record=StepRecord(
            config, recorder, at.ledger, at.scoring, at.buffer, at.fleet, at.reports, at.state, clock
        ),
        checkpoints=Checkpoints(
            config=config,
            services=given.services,
            ledger=at.ledger,
            outcomes=at.outcomes,
            buffer=at.buffer,
            scoring=at.scoring,
            history=given.history,
            recorder=recorder,
            undivided=at.undivided,
            state=at.state,
        ),
        schedule=at.schedule,
        admission=at.admission,
        outcomes=at.outcomes,
        autoscaler=Autoscaler(config.cluster, at.fleet, at.targets, recorder),
        health=health,
        history=given.history,
        undivided=at.undivided,
        state=at.state,
        clock=clock,
    )


def _ledger_sink(history: History, recorder: Recorder) -> Callable[[LedgerEvent], None]:
    """The log first: what it has, no crash loses."""

    def record(event: LedgerEvent) -> None:
        history.ledger_event(event)
        recorder.ledger_event(event)

    return record
