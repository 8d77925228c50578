"""What the parts tell the controller. Functions return these; only `cluster/` writes metrics."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepReport:
    """One policy update, as the learner saw it. Means are over rollouts unless the name says tokens.

    policy_version: after the update. lag: version at the update minus version at the first token.
    mismatch: |log p learner - log p engine| on trained tokens, before the update.
    bonus: as it was paid (memory.where may pay none). reward_parts: mean weighted value by part name.
    completion_tokens_mean: that the policy wrote in all turns of a rollout; an environment's replies are not among them.
    adapter_delta_norm: L2 norm of the change of all LoRA weights in this update.
    skipped: why the weights were left as they were, naming the first bad tensor; empty for an update that was made.
    micro_batch_tokens: that the update was computed with; fewer than asked for where memory ran out; 0 without a model.
    merged_survival: share of the adapter that would be left in bfloat16 weights it is merged into (docs/algorithms.md).

    What memory's bonus did (learner/bonus_effect.py). bonus_groups: groups where it may act, bonus_signal_groups: those of
    them whose task rewards differ. *_std: standard deviation within a group, mean over bonus_groups. bonus_changed_share:
    of bonus_groups. bonus_advantage_share, bonus_signal_share: of the squared advantage of those groups.
    """

    policy_version: int
    num_groups: int
    num_rollouts: int
    tokens_trained: int
    task_reward: float
    task_reward_std: float
    accuracy: float
    intrinsic_exploit: float
    intrinsic_explore: float
    bonus: float
    reward: float
    reward_parts: Mapping[str, float]
    advantage_abs_mean: float
    advantage_std: float
    loss: float
    clip_share: float
    kl: float
    entropy: float
    mismatch_mean: float
    mismatch_p99: float
    mismatch_max: float
    importance_truncated_share: float
    lag_mean: float
    lag_max: int
    completion_tokens_mean: float
    truncated_share: float
    zero_variance_share: float
    grad_norm: float
    adapter_delta_norm: float
    learning_rate: float
    forward_backward_s: float
    step_s: float
    peak_rss_bytes: int
    skipped: str = ""
    bonus_groups: int = 0
    bonus_signal_groups: int = 0
    exploit_std: float = 0.0
    explore_std: float = 0.0
    bonus_std: float = 0.0
    bonus_changed_share: float = 0.0
    bonus_advantage_share: float = 0.0
    bonus_signal_share: float = 0.0
    merged_survival: float = 1.0
    micro_batch_tokens: int = 0


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """The memory service's own account of itself.

    successes, failures: stored episodes. late: groups past the deadline, counted by the caller.
    encode_s, read_s: seconds spent since the start.
    """

    memory_version: int
    episodes: int
    queries: int
    successes: int
    failures: int
    evicted: int
    groups_scored: int
    rollouts_scored: int
    duplicates: int
    encode_s: float
    read_s: float


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a rollout worker did since it started, and what it has in hand.

    tokens: that the policy wrote. generate_s, verify_s: of calls that have ended; those that overlap are added up.
    leases_in_hand: taken and not answered yet. leases_to_judge: those of them that wait for the verifier, or are with it.
    """

    worker_id: str
    policy_version: int
    groups: int
    rollouts: int
    tokens: int
    generate_s: float
    verify_s: float
    adapter_loads: int
    adapter_load_s: float
    leases_in_hand: int = 0
    leases_to_judge: int = 0


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Held-out evaluation of one policy version: task reward only, no intrinsic term.

    accuracy: share of problems with a correct greedy answer. pass_at_k: share of problems with at least one
    correct among k sampled answers (unbiased estimator, Chen et al. 2021, arXiv 2107.03374, equation 1), None when not asked for.
    scorer_failed: answers that count as wrong because the scorer failed over them, beside the `invalid` ones.
    """

    policy_version: int
    step: int
    n: int
    accuracy: float
    mean_tokens: float
    truncated_share: float
    invalid: int
    max_new_tokens: int
    pass_at_k: float | None = None
    k: int | None = None
    scorer_failed: int = 0
