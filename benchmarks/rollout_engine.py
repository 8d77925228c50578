"""Claim: our decoding loop samples several times as fast as transformers' own `generate` on the same load.

Load: groups x rollouts samples of a fixed number of new tokens (no end token), a rank-16 LoRA with non-zero B on all
linear layers. Every configuration is warmed once, then measured in turns; the table shows the median and the best.
`generate` runs the base weights without any adapter, which flatters it.

    python -m benchmarks.rollout_engine --model FOLDER [--threads 2] [--repeats 3]
"""

import argparse
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from contracts.adapter import Adapter, AdapterManifest, LoraShape
from contracts.ports import GenerationRequest, Tokenizer
from contracts.problem import Sampling

RESULTS = Path(__file__).parent / "results" / "rollout_engine.json"
Run = Callable[[], int]


class EndlessTokenizer:
    """No token ends a sample: every configuration writes the same number of tokens."""

    eos_token_ids: frozenset[int] = frozenset()
    pad_token_id = 0
    opening = ""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"the benchmark's tokenizer has no {name}")


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    runs = {name: run for dtype in args.dtypes for name, run in _configurations(args, dtype).items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        run()
        print(f"warmed {name}", flush=True)
    for _ in range(args.repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    _report(args, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a causal model in safetensors")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=80)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def _configurations(args: argparse.Namespace, dtype: str) -> dict[str, Run]:
    """merged, side and transformers' own generate, each with a model of its own."""
    prompts = _prompts(args)
    stock = _load(args.model, dtype)
    runs: dict[str, Run] = {f"{dtype} transformers generate": partial(_generate, stock, prompts, args)}
    paths: tuple[Literal["merged", "unmerged"], ...] = ("merged", "unmerged")
    for path in paths:
        model = _load(args.model, dtype)
        tokenizer: Tokenizer = EndlessTokenizer()  # type: ignore[assignment]
        engine = TransformersEngine(model, tokenizer, path, args.groups * args.rollouts)
        engine.load_adapter(random_adapter(model))
        runs[f"{dtype} {path}"] = partial(_sample, engine, prompts, args)
    return runs


def _load(path: str, dtype: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    model.train(False)
    return model


def _prompts(args: argparse.Namespace) -> list[np.ndarray]:
    """Random tokens; lengths differ by one from group to group, so that there is padding."""
    random = np.random.default_rng(0)
    half = args.groups // 2
    return [random.integers(3, 1000, args.prompt_tokens - half + i).astype(np.int32) for i in range(args.groups)]


def _sample(engine: TransformersEngine, prompts: list[np.ndarray], args: argparse.Namespace) -> int:
    sampling = Sampling(temperature=1.0, max_new_tokens=args.new_tokens)
    seeds = [tuple(range(1000 * g, 1000 * g + args.rollouts)) for g in range(args.groups)]
    requests = [GenerationRequest(prompt, own, sampling) for prompt, own in zip(prompts, seeds, strict=True)]
    return sum(len(g.tokens_T) for group in engine.generate(requests, 1, 3600.0) for g in group)


@torch.inference_mode()
def _generate(model: PreTrainedModel, prompts: list[np.ndarray], args: argparse.Namespace) -> int:
    longest = max(len(prompt) for prompt in prompts)
    rows = [np.concatenate([np.zeros(longest - len(p), np.int64), p]) for p in prompts for _ in range(args.rollouts)]
    tokens = torch.from_numpy(np.stack(rows))
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts for _ in range(args.rollouts)])
    generate: Any = model.generate
    output = generate(
        tokens,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=args.new_tokens,
        min_new_tokens=args.new_tokens,
        pad_token_id=0,
    )
    return int(output[:, longest:].numel())


def random_adapter(model: nn.Module, r: int = 16) -> Adapter:
    """Version 1, all linear layers but the head, B not zero."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and path != "lm_head":
            bound = layer.in_features**-0.5
            a = (torch.rand(r, layer.in_features, generator=generator) * 2 - 1) * bound
            tensors[f"base_model.model.{path}.lora_A.weight"] = a
            tensors[f"base_model.model.{path}.lora_B.weight"] = (
                torch.randn(layer.out_features, r, generator=generator) * 1e-3
            )
    return adapter_of(1, tensors, r)


def adapter_of(version: int, tensors: dict[str, Tensor], r: int) -> Adapter:
    """On all linear layers, scaled by 2."""
    weights = safetensors.torch.save(tensors)
    lora = LoraShape(r, 2.0 * r, ("all-linear",))
    digest = hashlib.sha256(weights).hexdigest()
    return Adapter(AdapterManifest(version, digest, len(weights), "benchmark", lora, "float32", "benchmark"), weights)


def _report(args: argparse.Namespace, seconds: dict[str, list[float]]) -> None:
    tokens = args.groups * args.rollouts * args.new_tokens
    rows = [
        {
            "configuration": name,
            "tokens_per_s_median": round(tokens / statistics.median(times), 1),
            "tokens_per_s_best": round(tokens / min(times), 1),
            "seconds": [round(t, 3) for t in times],
        }
        for name, times in seconds.items()
    ]
    print(f"{'configuration':32s} {'tokens/s':>9s} {'best':>9s}")
    for row in rows:
        print(f"{row['configuration']:32s} {row['tokens_per_s_median']:9} {row['tokens_per_s_best']:9}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    path = RESULTS.with_stem(f"{RESULTS.stem}_{'_'.join(args.dtypes)}_{args.threads}_threads")
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    settings = {key: value for key, value in vars(args).items() if key != "model"}
    path.write_text(json.dumps({"settings": settings, "machine": machine, "rows": rows}, indent=1) + "\n")
    print(f"written to {path.relative_to(Path(__file__).parent.parent)}")


if __name__ == "__main__":
    main()
