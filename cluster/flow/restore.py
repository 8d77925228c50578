"""Restores a run to where an earlier process of it stood: ledger, memory, policy, then what was under way.

RecoveredState (newest checkpoint + log) -> ledger -> learner and memory -> logged updates made again -> queues
"""

from cluster.flow.quarantine import QUARANTINED
from cluster.flow.stages import RunInputs, Stages
from cluster.record.events.resuming import AdaptersSetAside
from cluster.record.history import RecoveredState, TrainedBatch
from cluster.record.ledger import LeaseStatus, LedgerSnapshot
from cluster.record.metrics import StepTiming
from cluster.record.resume import restore_services
from cluster.recovery.replay_updates import replay_updates
from contracts.adapter import Adapter
from contracts.errors import DataError
from contracts.reports import StepReport


async def restore(stages: Stages, given: RunInputs, past: RecoveredState) -> None:
    """For a run that begins: its first adapter. Raises DataError where learner and log disagree, and what reading a
    checkpoint raises."""
    state, recorder = stages.state, given.recorder
    _restore_ledger(stages, given, past)
    state.step = past.step
    recorder.restore_transcripts(past.step)
    if lost := given.registry.set_aside_after(past.step + len(past.batches)):
        recorder.event(AdaptersSetAside(tuple(lost)))
    adapter = await restore_services(past, given.services, recorder)
    await stages.training.publication.publish(adapter)
    if adapter.manifest.policy_version != state.step:
        raise DataError(
            f"the learner is at version {adapter.manifest.policy_version}, the run after update {state.step}: take "
            f"{past.checkpoint} away, and `memr resume` goes on from the checkpoint before it"
        )
    await _replay_updates(stages, given, past)
    stages.training.health.resume()
    _restore_groups(stages, past)
    state.restored = True


def _restore_ledger(stages: Stages, given: RunInputs, past: RecoveredState) -> None:
    if past.books is not None:
        stages.ledger.load(past.books)
    for event in past.events:
        stages.ledger.restore(event)
    if past.begun:
        books = stages.ledger.snapshot()
        _restore_quarantine(stages, books)
        given.recorder.ledger_anew(books.events())


def _restore_quarantine(stages: Stages, books: LedgerSnapshot) -> None:
    for lease_id, reason in books.reasons.items():
        if reason == QUARANTINED:
            stages.admission.quarantine.add(books.problems_N[lease_id])


async def _replay_updates(stages: Stages, given: RunInputs, past: RecoveredState) -> None:
    """Logged updates, in their order; the lines of metrics that were lost are written again."""
    state, recorder, training = stages.state, given.recorder, stages.training
    recorded = recorder.last_step() if past.batches else 0

    async def made(batch: TrainedBatch, report: StepReport, adapter: Adapter) -> None:
        await training.publication.publish(adapter)
        state.step = batch.step
        if batch.step > recorded:
            training.step_record.write(batch.groups, report, StepTiming(0.0, 0.0, 0.0, 0.0, 0.0), batch.counts)
        else:
            recorder.groups(batch.step, batch.groups)  # a power cut may have left the line alone

    await replay_updates(given.services.learner, past, past.batches, recorder, made)


def _restore_groups(stages: Stages, past: RecoveredState) -> None:
    """Into the stage that each group had reached."""
    for scored in past.buffered.values():
        stages.buffer.put(scored)
    for group in past.unanswered.values():
        stages.scoring.add_unanswered(group)
    for group in past.sampled.values():
        stages.scoring.add(group)
    stages.outcomes.counts = past.counts
    for lease_id in stages.ledger.with_status(LeaseStatus.IN_FLIGHT):
        if lease_id not in past.sampled:
            stages.admission.issue_again(lease_id)
