"""Claim: a whole GRPO step on the CPU is at least twice as fast as TRL's GRPOTrainer, in at most half the memory.

SmolLM2-135M-Instruct, LoRA r 16 on all linear layers, bfloat16, the same questions, 8 problems x 8 rollouts of
exactly 64 new tokens on both sides (no early end). TRL runs in an environment of its own, given with --trl-python;
each side runs alone, one after the other, in a process of its own. Ours is the worker's engine and the learner in one
process, one after the other (no overlap), with no memory service, as TRL has none.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results_table import show

if TYPE_CHECKING:
    from contracts.ports import Generation, GenerationRequest, Tokenizer
    from contracts.rollout import ScoredGroup


def our_side(args: argparse.Namespace) -> dict[str, Any]:
    """One process: sample with the engine, score a stand-in reward, update; per step seconds of both."""
    from actors.config import ActorSettings
    from actors.load import load_engine
    from learner.config import LearnerSettings
    from learner.load import load_learner
    from tasks.prompts import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    tokenizer.eos_token_ids = frozenset()  # exactly 64 tokens, as on the other side
    engine = load_engine(ActorSettings(engine="transformers", torch_threads=args.threads), args.model, tokenizer)
    learner = load_learner(
        LearnerSettings(learning_rate=1e-4, torch_threads=args.threads), args.model, 0, "", (), args.new_tokens
    )
    questions = json.loads(Path(args.questions).read_text())
    generation_s, training_s = [], []
    for step in range(args.updates):
        chosen = [questions[(step * args.groups + i) % len(questions)] for i in range(args.groups)]
        start = time.perf_counter()
        engine.load_adapter(learner.publish())
        sampled = engine.generate(requests_of(args, tokenizer, chosen, step), step, 600.0)
        generation_s.append(time.perf_counter() - start)
        groups = groups_of(tokenizer, chosen, sampled, step)
        start = time.perf_counter()
        learner.step(groups)
        training_s.append(time.perf_counter() - start)
        engine.drop_adapter(step)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    steps = [a + b for a, b in zip(generation_s, training_s, strict=True)]
    return {"version": "this tree", "steps_s": steps, "generation_s": generation_s, "peak_rss_bytes": peak}


def requests_of(
    args: argparse.Namespace, tokenizer: "Tokenizer", questions: Sequence[str], step: int
) -> list["GenerationRequest"]:
    from contracts.ports import GenerationRequest
    from contracts.problem import Sampling

    sampling = Sampling(1.0, args.new_tokens)
    requests = []
    for i, question in enumerate(questions):
        first = 1000 * step + 8 * i
        prompt = tokenizer.encode_chat([{"role": "user", "content": question}])
        requests.append(GenerationRequest(prompt, tuple(range(first, first + args.rollouts)), sampling))
    return requests


def groups_of(
    tokenizer: "Tokenizer", questions: Sequence[str], sampled: Sequence[Sequence["Generation"]], step: int
) -> list["ScoredGroup"]:
    """With a stand-in reward: the length of the text modulo 7."""
    import numpy as np

    from contracts.problem import Purpose
    from contracts.rollout import Rollout, RolloutGroup, ScoredGroup, TurnOutcome
    from contracts.verdict import Scored

    groups = []
    for i, (question, generations) in enumerate(zip(questions, sampled, strict=True)):
        prompt = tokenizer.encode_chat([{"role": "user", "content": question}])
        rollouts = tuple(
            Rollout(
                f"{step}/{i}/{j}",
                g.tokens_T,
                g.logprobs_T,
                np.ones(len(g.tokens_T), np.bool_),
                np.array([len(g.tokens_T)], np.int32),
                (TurnOutcome.DONE,),
                g.finish_reason,
                "",
                Scored(float(len(tokenizer.decode(g.tokens_T)) % 7), False),
                0,
            )
            for j, g in enumerate(generations)
        )
        group = RolloutGroup(i, str(i), question, prompt, rollouts, step, Purpose.TRAIN, 1.0, "b", 0, 0.0, 0.0)
        groups.append(ScoredGroup.without_bonus(group))
    return groups


def run_side(args: argparse.Namespace, python: str, script: list[str]) -> dict[str, Any]:
    names = ("model", "questions", "groups", "rollouts", "new_tokens", "updates", "threads")
    arguments = [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    with tempfile.TemporaryDirectory() as work:
        extra = [] if "--ours" in script else ["--micro-batch", str(args.micro_batch), "--work", work]
        done = subprocess.run([python, *script, *arguments, *extra], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def row(name: str, side: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The median step after the first, which warms up; generation is everything that is not training."""
    order = sorted(range(1, len(side["steps_s"])), key=lambda i: side["steps_s"][i])
    i = order[len(order) // 2]
    step, generation = side["steps_s"][i], side["generation_s"][i]
    return {
        "what": f"{name} {side['version']}", "s per step": step, "generation s": generation, "training s": step - generation,
        "generated tokens/s": tokens / generation, "trained tokens/s": tokens / (step - generation),
        "peak GB": side["peak_rss_bytes"] / 1e9,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of SmolLM2-135M-Instruct as safetensors")
    parser.add_argument("--questions", required=True, help="JSON list of questions")
    parser.add_argument("--trl-python", help="python of an environment with trl and peft")
    parser.add_argument("--ours", action="store_true", help="our side alone, as one JSON line (used by this script)")
    for name, default in (
        ("groups", 8),
        ("rollouts", 8),
        ("new-tokens", 64),
        ("updates", 3),
        ("micro-batch", 16),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(our_side(args)))
        return
    tokens = args.groups * args.rollouts * args.new_tokens
    sides = {"memr": run_side(args, sys.executable, ["-m", "benchmarks.grpo_step", "--ours"])}
    if args.trl_python:
        sides["TRL"] = run_side(args, args.trl_python, [str(Path(__file__).with_name("grpo_step_trl.py"))])
    rows = [row(name, side, tokens) for name, side in sides.items()]
    if args.trl_python:
        ours, theirs = rows
        rows.append({"what": "TRL / memr"} | {key: theirs[key] / ours[key] for key in list(ours)[1:]})
    show("grpo_step", f"One GRPO step, {args.groups} x {args.rollouts} rollouts of {args.new_tokens} tokens, bfloat16, LoRA r 16", rows,
         f"{args.threads} threads, micro-batch of TRL {args.micro_batch}, median of {args.updates - 1} steps after the first")  # fmt: skip


if __name__ == "__main__":
    main()
