"""Learner update: tokens per second and peak memory, with the prompt shared by its group and without.

Claim: at least 2x faster than 48-53 s, at most half of 7.7 GB (TRL 1.16's training part on 8 x 8
rollouts of 64 tokens, SmolLM2-135M, LoRA r 16, bfloat16, 2 cores). Each case runs in a process of its own, so that its
peak memory is its own. Policy tokens per second: what the loss saw, whatever had to be computed for it.

    python -m benchmarks.learner_update --model FOLDER
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results_table import show

CASES = ("shared", "plain")


def main() -> None:
    args = _arguments()
    if args.case:
        print(json.dumps(run_case(args)))
        return
    results = [_in_process(args, case) for case in CASES]
    show(
        "learner_update",
        f"Learner update: {args.groups} x {args.rollouts} rollouts of {args.new_tokens} tokens, prompts of "
        f"{args.min_prompt_tokens}-{args.max_prompt_tokens}, {args.dtype}, {args.threads} threads",
        results,
        "known for TRL's training part: 48-53 s, 7.7 GB in all; goal 2x faster, half the memory",
    )


def run_case(args: argparse.Namespace) -> dict[str, Any]:
    """Updates on made-up rollouts of the asked shape; the first one is reported apart, it warms caches up."""
    from learner.config import LearnerSettings
    from learner.learner import Learner
    from learner.policy import LoraPolicy

    settings = LearnerSettings(
        dtype=args.dtype,
        device="cpu",
        torch_threads=args.threads,
        micro_batch_tokens=args.micro_batch_tokens,
        logprob_chunk_tokens=args.chunk_tokens,
        shared_prefix=args.case == "shared",
        max_policy_lag=args.updates,
        mismatch_stop=1e9,
    )
    policy = LoraPolicy.load(args.model, settings, seed=0)
    learner = Learner(policy, settings, "benchmark", (), args.new_tokens)
    groups = make_groups(args)
    reports = [learner.step(groups) for _ in range(args.updates)]
    seconds = [report.step_s for report in reports]
    typical_s = float(np.median(seconds[1:] or seconds))
    tokens = reports[-1].tokens_trained
    return {
        "prompt": args.case,
        "first update s": seconds[0],
        "median s": typical_s,
        "best s": min(seconds),
        "policy tokens": tokens,
        "policy tokens/s": tokens / typical_s,
        "peak GiB": reports[-1].peak_rss_bytes / 2**30,
    }


def make_groups(args: argparse.Namespace) -> list[Any]:
    """Random tokens, prompts of min to max length, rewards that vary; engine log-probs are near the learner's."""
    from contracts.problem import Purpose
    from contracts.rollout import FinishReason, Rollout, RolloutGroup, ScoredGroup, TurnOutcome
    from contracts.verdict import Scored

    rng = np.random.default_rng(0)
    length = args.new_tokens

    def rollout(lease: int, index: int) -> Rollout:
        return Rollout(
            rollout_id=f"{lease}/0/{index}",
            tokens_T=rng.integers(3, 40_000, length).astype(np.int32),
            logprobs_T=np.full(length, -12.0, np.float32),
            policy_mask_T=np.ones(length, np.bool_),
            turn_ends_U=np.array([length], np.int32),
            outcomes=(TurnOutcome.DONE,),
            finish_reason=FinishReason.STOP,
            text="",
            verdict=Scored(float(index % 2), bool(index % 2)),
            seed=0,
        )

    def group(lease: int) -> RolloutGroup:
        prompt_length = rng.integers(args.min_prompt_tokens, args.max_prompt_tokens + 1)
        prompt_P = rng.integers(3, 40_000, prompt_length).astype(np.int32)
        rollouts = tuple(rollout(lease, i) for i in range(args.rollouts))
        return RolloutGroup(lease, "p", "q", prompt_P, rollouts, 0, Purpose.TRAIN, 1.0, "w", 0, 0.0, 0.0)

    return [ScoredGroup.without_bonus(group(lease)) for lease in range(args.groups)]


def _in_process(args: argparse.Namespace, case: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.learner_update", *sys.argv[1:], "--case", case]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts per group")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--min-prompt-tokens", type=int, default=60)
    parser.add_argument("--max-prompt-tokens", type=int, default=100)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch-tokens", type=int, default=1280)
    parser.add_argument("--chunk-tokens", type=int, default=128)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
