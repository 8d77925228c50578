"""One policy update: scored groups in, the next adapter out.

    groups -> reject stale -> credit (rewards -> advantages) -> pack -> forward, loss, backward -> clip, update -> v + 1

Consumes ScoredGroups, produces StepReports and Adapters; waits for nothing. The sum of the loss is divided by a number
that is known before the first backward, so the gradient is the same for any number of micro-batches.
Simplified: one rank, one update per batch.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contracts.adapter import Adapter, AdapterManifest
from contracts.bonus_rule import DEFAULT_RULE, BonusRule
from contracts.errors import BadNumbersError, DataError, LearnerError
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup
from learner import checkpoint
from learner.config import LearnerSettings
from learner.credit import CreditedGroup, credit_all
from learner.host_memory import peak_rss_bytes
from learner.losses import PolicyTokens, RatioLimits, k3, loss_of, policy_loss, token_shares, weighted_k3
from learner.master_weights import MasterWeights
from learner.methods import schedule_of
from learner.packing import MicroBatch, pack, rows_of
from learner.ports import Policy
from learner.probe_reader import ProbeReader
from learner.reference import Reference
from learner.retry_smaller import RetrySmaller
from learner.schedule import learning_rate
from learner.staleness import reject_stale
from learner.step_report import UpdateCost, UpdateNorms, make_report
from learner.token_table import TokenTable
from learner.update_record import UpdateRecord


class Learner:
    """A PolicyLearner (contracts.ports) around one policy. Not thread-safe: one owner calls it.

    probe_tokens: fixed sequences whose log-probs every published adapter carries. max_new_tokens: of the run's
    sampling, the constant of Dr. GRPO's normaliser. clock: seconds, monotonic. bonus_rule: how memory's bonus acts.
    """

    def __init__(
        self,
        policy: Policy,
        settings: LearnerSettings,
        template_hash: str,
        probe_tokens: Sequence[NDArray[np.int32]],
        max_new_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
        *,
        bonus_rule: BonusRule = DEFAULT_RULE,
    ) -> None:
        self._policy, self._settings, self._bonus_rule = policy, settings, bonus_rule
        self._template_hash = template_hash
        self._probes = ProbeReader(policy, probe_tokens)
        self._max_new_tokens = max_new_tokens
        self._clock = clock
        self.masters = MasterWeights(policy.adapter_parameters, settings)
        self._reference = Reference(policy, self.masters, settings)
        self._retry = RetrySmaller(settings.micro_batch_tokens, policy.device, share_prompts=policy.shares_prompts)
        self._version = 0

    @property
    def policy_version(self) -> int:
        return self._version

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._policy.plain_rows:
            return ()
        return (
            f"every rollout runs with its prompt, as with learner.shared_prefix = false: {self._policy.plain_rows}",
        )

    def step(self, groups: Sequence[ScoredGroup]) -> StepReport:
        """One update. Numbers that are not finite skip it: the version goes up, the weights stay, the report says why.
        Raises StaleGroupError, ValueError (broken input) and LearnerError (a broken invariant), before any change."""
        started = self._clock()
        reject_stale(groups, self._version, self._settings.max_policy_lag)
        credited = credit_all(groups, self._settings, self._bonus_rule)
        records = [UpdateRecord()]
        skipped, norms = "", UpdateNorms(0.0, 0.0, 0.0)
        backward_done = started
        try:
            self._sum_gradients(credited, records)
            backward_done = self._clock()
            norms = self._clip_and_update(records[-1])
        except BadNumbersError as error:
            skipped = str(error)
        self._version += 1
        cost = UpdateCost(backward_done - started, self._clock() - started, peak_rss_bytes())
        report = make_report(groups, credited, records[-1], norms, cost, self._version, skipped)
        budget = self._retry.budget_tokens
        return replace(report, merged_survival=self._policy.merged_survival(), micro_batch_tokens=budget)

    def _sum_gradients(self, credited: Sequence[CreditedGroup], records: list[UpdateRecord]) -> None:
        """Of the whole batch, in the masters; in smaller micro-batches, from the beginning, where memory runs out.
        records: one more for each try."""
        normaliser = self._normaliser(credited)

        def attempt(batches: Sequence[MicroBatch]) -> None:
            records.append(UpdateRecord())
            self.masters.zero_gradients()
            for micro_batch in batches:
                self._backward(micro_batch, normaliser, records[-1])

        self._retry.run(lambda: self._pack(credited), attempt)

    def publish(self) -> Adapter:
        """The current version as an immutable artifact with the proof that engines check."""
        weights = self._policy.adapter_bytes()
        probes, amplified = self._probes.read()
        manifest = AdapterManifest(
            policy_version=self._version,
            weights_hash=hashlib.sha256(weights).hexdigest(),
            num_bytes=len(weights),
            base_model=self._policy.base_model,
            lora=self._policy.lora,
            dtype=self._policy.dtype_name,
            template_hash=self._template_hash,
            probes=probes,
            amplified=amplified,
        )
        return Adapter(manifest, weights)

    def save(self, directory: Path) -> None:
        """Everything the next update depends on: float32 weights, moments, average, random state, version."""
        tensors = self.masters.state() | self._reference.state() | {"rng/cpu": torch.get_rng_state()}
        if self._policy.device.type == "cuda":
            tensors["rng/cuda"] = torch.cuda.get_rng_state(self._policy.device)
        checkpoint.write(directory, self._manifest(), tensors)

    def restore(self, directory: Path) -> None:
        """Continue exactly where `save` stood. Raises DataError for another run's or a damaged checkpoint."""
        manifest, tensors = checkpoint.read(directory)
        checkpoint.check_same(manifest, self._manifest())
        on_device = {name: t if name.startswith("rng/") else t.to(self._policy.device) for name, t in tensors.items()}
        try:
            self.masters.load_state(on_device)
            self._reference.load_state(on_device)
            self._load_random_state(tensors)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(
                f"learner checkpoint {directory} does not fit this learner: {error}; use an older one"
            ) from error
        self._version = manifest.policy_version

    def _load_random_state(self, tensors: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(tensors["rng/cpu"])
        if self._policy.device.type == "cuda" and "rng/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng/cuda"], self._policy.device)

    def roll_back(self, directory: Path) -> None:
        """The weights and moments of an earlier checkpoint under the present version: versions never go back."""
        version = self._version
        self.restore(directory)
        self._version = version

    def _normaliser(self, credited: Sequence[CreditedGroup]) -> int:
        """What the summed loss is divided by; groups without signal count, or their absence would raise the step."""
        match self._settings.loss_normalisation:
            case "constant":
                return max(1, sum(len(group.rollouts) for group in credited) * self._max_new_tokens)
            case "rollouts":
                return max(1, sum(int(group.in_loss_G.sum()) for group in credited))
            case "tokens":
                return max(1, sum(group.num_loss_tokens for group in credited))

    def _pack(self, credited: Sequence[CreditedGroup]) -> list[MicroBatch]:
        """Without KL or entropy term a group whose advantages are all 0 has gradient 0: it is not run."""
        settings = self._settings
        run_all = settings.kl_weight > 0 or settings.entropy_weight > 0
        rows = [rows_of(group, self._version) for group in credited if run_all or group.has_signal]
        return pack(rows, self._retry.budget_tokens, self._policy.shares_prompts)

    def _backward(self, batch: MicroBatch, normaliser: int, record: UpdateRecord) -> None:
        settings = self._settings
        reference_N = self._reference.logprobs(batch) if settings.kl_weight > 0 else None
        table, logprob_N, entropy_N = self._policy.score(batch)
        log_ratio_N = logprob_N.detach() - table.engine_logprob_N
        tokens = PolicyTokens(log_ratio_N, table.advantage_N, table.row_N, table.num_rows)
        limits = RatioLimits(settings.clip_low, settings.clip_high, settings.importance_limit)
        weights = loss_of(settings.loss)(tokens, limits)
        kl_N = self._kl(table, logprob_N, reference_N)
        loss_N = policy_loss(logprob_N, weights.weight_N, table.advantage_N)
        loss_N = loss_N + settings.kl_weight * kl_N - settings.entropy_weight * entropy_N
        if settings.loss_normalisation == "rollouts":
            loss_N = loss_N * token_shares(table.row_N, table.num_rows)
        loss = loss_N.sum() / normaliser
        _check_finite(loss, {"log-prob": logprob_N, "entropy": entropy_N, "weight": weights.weight_N, "kl": kl_N})
        loss.backward()  # type: ignore[no-untyped-call]
        record.add(table, logprob_N, entropy_N, kl_N, weights, float(loss.detach()))

    def _kl(self, table: TokenTable, logprob_N: Tensor, reference_N: Tensor | None) -> Tensor:
        if reference_N is None:
            return torch.zeros_like(logprob_N)
        if self._settings.kl_estimator == "k3":
            return k3(logprob_N, reference_N)
        log_ratio_N = logprob_N.detach() - table.engine_logprob_N
        return weighted_k3(logprob_N, reference_N, log_ratio_N, self._settings.importance_limit)

    def _clip_and_update(self, record: UpdateRecord) -> UpdateNorms:
        settings = self._settings
        rate = learning_rate(
            self._version,
            settings.num_updates,
            settings.learning_rate,
            schedule_of(settings.schedule),
            settings.warmup_share,
        )
        self._refuse_mismatch(record)
        grad_norm = self.masters.grad_norm()
        if record.has_live_token and grad_norm == 0:
            raise LearnerError(
                f"update of v{self._version}: rewards vary but the gradient is exactly 0, so nothing can be learned. "
                f"Does learner.lora_targets ({settings.lora_targets}) adapt layers that the model uses?"
            )
        if grad_norm == 0:
            # AdamW would still move on old moments: no evidence, no change.
            return UpdateNorms(0.0, 0.0, rate)
        delta_norm = self.masters.update(rate, grad_norm, settings.max_grad_norm, settings.max_relative_change)
        if delta_norm == 0 and rate > 0:
            raise LearnerError(f"update of v{self._version}: gradient norm {grad_norm:.3g}, but no weight changed")
        self._reference.follow()
        return UpdateNorms(grad_norm, delta_norm, rate)

    def _refuse_mismatch(self, record: UpdateRecord) -> None:
        gap = record.mismatch()
        if gap.at_lag_0 and gap.mean > self._settings.mismatch_stop:
            raise LearnerError(
                f"learner and engine disagree: mean |log-prob difference| {gap.mean:.3g} (p99 {gap.p99:.3g}) on tokens "
                f"of the current version v{self._version}, limit {self._settings.mismatch_stop}. Compare base model, "
                "adapter, chat template and temperature of the two, or raise learner.mismatch_stop"
            )

    def _manifest(self) -> checkpoint.LearnerManifest:
        lora = self._policy.lora
        return checkpoint.LearnerManifest(
            policy_version=self._version,
            base_model=self._policy.base_model,
            template_hash=self._template_hash,
            dtype=self._policy.dtype_name,
            lora_r=lora.r,
            lora_alpha=lora.alpha,
            target_modules=lora.target_modules,
        )


def _check_finite(loss: Tensor, terms: dict[str, Tensor]) -> None:
    if torch.isfinite(loss):
        return
    bad = next((name for name, values in terms.items() if not torch.isfinite(values).all()), "sum")
    raise BadNumbersError(
        f"the loss is not finite: first bad term is the {bad}; the weights are unchanged. Look at "
        "learner.learning_rate and at the log-probs that the engine reports"
    )
