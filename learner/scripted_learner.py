"""A learner without a model, for runs on the scripted engine: versions count up, weights are a few bytes.

Everything around it (slots, lag, memory, ledger, adapters, metrics) is the real thing. Reports carry real
rewards, lags and what memory's bonus does to the advantages; what a policy would have to compute (loss, entropy, mismatch) is 0.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_tensors

from contracts.adapter import Adapter, AdapterManifest, LoraShape
from contracts.bonus_rule import DEFAULT_RULE, BonusRule
from contracts.bounded_json import Count, Stored, read_fields
from contracts.durable import sync_directory, write_file
from contracts.errors import DataError
from contracts.reports import StepReport
from contracts.rollout import FinishReason, ScoredGroup
from contracts.verdict import Scored
from learner.bonus_effect import bonus_effect
from learner.config import LearnerSettings, ScriptedLearnerSettings
from learner.credit import CreditedGroup, credit_all
from learner.staleness import reject_stale


class ScriptedLearner:
    def __init__(
        self,
        max_policy_lag: int,
        script: ScriptedLearnerSettings,
        template_hash: str = "",
        sleep: Callable[[float], None] = time.sleep,
        *,
        settings: LearnerSettings | None = None,
        bonus_rule: BonusRule = DEFAULT_RULE,
    ) -> None:
        """settings: how rewards become advantages, which is reported; nothing is trained by them."""
        self._settings, self._bonus_rule = settings or LearnerSettings(), bonus_rule
        self._max_policy_lag = max_policy_lag
        self._script = script
        self._update_s = script.update_s
        self._adapter_floats = max(1, script.adapter_bytes // 4)
        self._template_hash = template_hash
        self._sleep = sleep
        self._version = 0

    @property
    def policy_version(self) -> int:
        return self._version

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def step(self, groups: Sequence[ScoredGroup]) -> StepReport:
        reject_stale(groups, self._version, self._max_policy_lag)
        if self._update_s:
            self._sleep(self._update_s)
        lags = [self._version - scored.group.policy_version for scored in groups]
        self._version += 1
        credited = credit_all(groups, self._settings, self._bonus_rule)
        report = _report(groups, credited, lags, self._version, self._update_s)
        effect = bonus_effect(groups, credited)
        return replace(report, skipped=self._bad_numbers(), **dataclasses.asdict(effect))

    def _bad_numbers(self) -> str:
        draw = np.random.default_rng(self._version).random()
        return "scripted fault: the gradient is not finite" if draw < self._script.bad_update_probability else ""

    def publish(self) -> Adapter:
        weights = save_tensors({"scripted": np.full(self._adapter_floats, float(self._version), np.float32)})
        manifest = AdapterManifest(
            policy_version=self._version,
            weights_hash=hashlib.sha256(weights).hexdigest(),
            num_bytes=len(weights),
            base_model="scripted",
            lora=LoraShape(r=1, alpha=1.0, target_modules=()),
            dtype="float32",
            template_hash=self._template_hash,
        )
        return Adapter(manifest, weights)

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        write_file(directory / "scripted.json", json.dumps({"policy_version": self._version}).encode())
        sync_directory(directory)

    def roll_back(self, directory: Path) -> None:
        """The scripted weights are the version itself, which never goes back: there is nothing to restore."""
        if not (directory / "scripted.json").exists():
            raise DataError(f"{directory} holds no scripted learner")

    def restore(self, directory: Path) -> None:
        """Raises DataError for a checkpoint that is missing or damaged."""
        self._version = read_fields(directory / "scripted.json", _StoredVersion).policy_version


class _StoredVersion(Stored):
    policy_version: Count


def _report(
    groups: Sequence[ScoredGroup], credited: Sequence[CreditedGroup], lags: Sequence[int], version: int, update_s: float
) -> StepReport:
    rollouts = [rollout for scored in groups for rollout in scored.group.trainable_rollouts]
    rewards = [rollout.task_reward for rollout in rollouts]
    bonus = np.concatenate([group.bonus_G for group in credited])
    spreads = [np.std([r.task_reward for r in scored.group.trainable_rollouts]) for scored in groups]
    names = sorted({name for r in rollouts if isinstance(r.verdict, Scored) for name in r.verdict.parts})
    parts = {
        n: float(np.mean([r.verdict.parts.get(n, 0.0) for r in rollouts if isinstance(r.verdict, Scored)]))
        for n in names
    }
    return StepReport(
        policy_version=version,
        num_groups=len(groups),
        num_rollouts=len(rollouts),
        tokens_trained=sum(rollout.num_policy_tokens for rollout in rollouts),
        task_reward=float(np.mean(rewards)),
        task_reward_std=float(np.std(rewards)),
        accuracy=float(np.mean([rollout.correct for rollout in rollouts])),
        intrinsic_exploit=float(np.mean(np.concatenate([scored.exploit_G for scored in groups]))),
        intrinsic_explore=float(np.mean(np.concatenate([scored.explore_G for scored in groups]))),
        bonus=float(np.mean(bonus)),
        reward=float(np.mean(rewards) + np.mean(bonus)),
        reward_parts=parts,
        advantage_abs_mean=0.0,
        advantage_std=0.0,
        loss=0.0,
        clip_share=0.0,
        kl=0.0,
        entropy=0.0,
        mismatch_mean=0.0,
        mismatch_p99=0.0,
        mismatch_max=0.0,
        importance_truncated_share=0.0,
        lag_mean=float(np.mean(lags)),
        lag_max=max(lags),
        completion_tokens_mean=float(np.mean([len(rollout.tokens_T) for rollout in rollouts])),
        truncated_share=float(np.mean([r.finish_reason is FinishReason.LENGTH for r in rollouts])),
        zero_variance_share=float(np.mean([spread == 0 for spread in spreads])),
        grad_norm=0.0,
        adapter_delta_norm=0.0,
        learning_rate=0.0,
        forward_backward_s=update_s,
        step_s=update_s,
        peak_rss_bytes=0,
    )
