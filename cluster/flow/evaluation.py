"""Held-out evaluation: which leases it needs, and what their groups say. Pure.

Task reward only, no intrinsic term; leases of its own (negative ids) that take no slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from contracts.problem import Lease, Problem, Purpose, Sampling
from contracts.reports import EvalReport
from contracts.rollout import FinishReason, RolloutGroup
from contracts.verdict import SCORER, Invalid, Scored


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """One evaluation of one version. samples: 1 and temperature 0 is greedy accuracy; more is pass@k."""

    policy_version: int
    step: int
    samples: int
    sampling: Sampling


def eval_leases(
    plan: EvalPlan, problems: Sequence[Problem], first_id: int, run_seed: int, deadline_s: float
) -> list[Lease]:
    """One lease per problem, ids first_id, first_id - 1, ..."""
    return [
        Lease(
            lease_id=first_id - i,
            problem=problem,
            num_rollouts=plan.samples,
            sampling=plan.sampling,
            purpose=Purpose.EVAL,
            policy_version=plan.policy_version,
            run_seed=run_seed,
            attempt=0,
            deadline_s=deadline_s,
        )
        for i, problem in enumerate(problems)
    ]


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that k of the samples contain a correct one: 1 - C(n-c, k)/C(n, k), the unbiased estimator of
    Chen et al. 2021, arXiv 2107.03374, equation 1. Requires k <= num_samples."""
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def evaluate_groups(plan: EvalPlan, groups: Sequence[RolloutGroup | None]) -> EvalReport:
    """None stands for a problem whose every attempt failed: it counts as wrong, and as invalid."""
    done = [group for group in groups if group is not None]
    rollouts = [rollout for group in done for rollout in group.rollouts]
    n = len(groups)
    correct = [sum(rollout.correct for rollout in group.rollouts) for group in done]
    accuracy = sum(correct) / (n * plan.samples) if n else 0.0
    k = plan.samples if plan.samples > 1 else None
    return EvalReport(
        policy_version=plan.policy_version,
        step=plan.step,
        n=n,
        accuracy=accuracy,
        mean_tokens=sum(r.num_policy_tokens for r in rollouts) / max(1, len(rollouts)),
        truncated_share=sum(r.finish_reason is FinishReason.LENGTH for r in rollouts) / max(1, len(rollouts)),
        invalid=sum(isinstance(r.verdict, Invalid) for r in rollouts) + plan.samples * (n - len(done)),
        max_new_tokens=plan.sampling.max_new_tokens,
        pass_at_k=sum(pass_at_k(plan.samples, c, k) for c in correct) / n if k and n else None,
        k=k,
        scorer_failed=sum(isinstance(r.verdict, Scored) and SCORER in r.verdict.failed for r in rollouts),
    )
