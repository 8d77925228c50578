"""Claim: one update at the default learning rate acts in what samples and in what trains, in bfloat16 as in float32.

The update is the first step of AdamW (every number of B moves by the learning rate) towards some sequences and away from
others. Arrived: the regression of what a forward's log-probs moved on what they move in float32, over all tokens; the
rounding of the forward itself is in both of its scores, and the standard error says what is left of it. Left in weights:
learner/merged_survival.py over all adapted layers.

    python -m benchmarks.small_update [--rates 1e-4 5e-4]
"""

import argparse
import operator
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from benchmarks.results_table import show
from benchmarks.rollout_engine import EndlessTokenizer, adapter_of
from cluster.launch.model_store import PACKAGED_MODEL, resolve_model
from contracts.ports import Tokenizer
from learner.config import LearnerSettings
from learner.lora_forward import frozen_weight, lora_layers
from learner.merged_survival import survival
from learner.policy import LoraPolicy

R, ALPHA = 16, 32
Tensors = dict[str, Tensor]
Score = Callable[[NDArray[np.int32]], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-4, 5e-4])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = resolve_model(PACKAGED_MODEL)
    sequences = _sequences(path)
    policy = get_peft_model(_load(path, torch.float32), _lora())
    start = _tensors(policy)
    gradients = _gradients(policy, sequences)
    rows: list[dict[str, Any]] = []
    for rate in args.rates:
        update = start | {name: (-rate * gradient.sign()).bfloat16() for name, gradient in gradients.items()}
        _put(policy, start)
        before = _scores(_plain(policy), sequences)
        _put(policy, update)
        wanted = _scores(_plain(policy), sequences) - before
        pairs = [(frozen_weight(layer), layer.get_delta_weight("default")) for layer in lora_layers(policy)]
        left = survival(pairs, torch.bfloat16)
        for name, forward in _forwards(path, args.threads):
            scores_before = _scores(forward(start), sequences)
            moved = _scores(forward(update), sequences) - scores_before
            share = float(moved @ wanted / (wanted @ wanted))
            error = float(np.std(moved - share * wanted) / np.linalg.norm(wanted))
            mean = float(np.abs(wanted).mean())
            rows.append(
                {
                    "learning rate": rate,
                    "bfloat16": name,
                    "arrived": round(share, 3),
                    "standard error": round(error, 3),
                    "float32 moves, nats": round(mean, 4),
                    "left in merged weights": round(left, 3),
                }
            )
    show("small_update", f"One update of {PACKAGED_MODEL}, {len(wanted)} tokens", rows)


def _sequences(path: str) -> list[NDArray[np.int32]]:
    random = np.random.default_rng(0)
    texts = []
    for _ in range(20):
        a, b, sign = int(random.integers(100)), int(random.integers(100)), str(random.choice(["+", "-"]))
        total = {"+": operator.add, "-": operator.sub}[sign](a, b)
        texts.append(f"Question: What is {a} {sign} {b}? Answer: {a} {sign} {b} = {total}.")
    tokenizer = AutoTokenizer.from_pretrained(path)
    return [np.array(tokenizer(text)["input_ids"], np.int32) for text in texts]


def _load(path: str, dtype: torch.dtype) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
    model.train(False)
    return model


def _lora() -> LoraConfig:
    return LoraConfig(r=R, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def _gradients(policy: Any, sequences: list[NDArray[np.int32]]) -> Tensors:
    """Of every B, of minus the log-probs of even sequences plus those of odd ones."""
    for index, tokens_P in enumerate(sequences):
        ((-1) ** (index + 1) * _logprobs(policy, tokens_P).sum()).backward()
    return {
        name.replace(".default.", "."): parameter.grad.clone()
        for name, parameter in policy.named_parameters()
        if ".lora_B." in name
    }


def _tensors(policy: Any) -> Tensors:
    named = {name.replace(".default.", "."): p.detach() for name, p in policy.named_parameters() if ".lora_" in name}
    return {name: tensor.bfloat16() for name, tensor in named.items()}


def _put(policy: Any, tensors: Tensors) -> None:
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".lora_" in name:
                parameter.copy_(tensors[name.replace(".default.", ".")])


def _logprobs(model: Any, tokens_P: NDArray[np.int32]) -> Tensor:
    tokens_1P = torch.from_numpy(tokens_P.astype(np.int64))[None]
    logits_PV = model(input_ids=tokens_1P, use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits_PV, -1).gather(1, tokens_1P[0, 1:, None])[:, 0]


def _plain(model: Any) -> Score:
    def score(tokens_P: NDArray[np.int32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.concatenate([np.zeros(1, np.float32), _logprobs(model, tokens_P).numpy()])

    return score


def _scores(score: Score, sequences: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    return np.concatenate([score(tokens_P)[1:] for tokens_P in sequences]).astype(np.float64)


def _forwards(path: str, threads: int) -> Iterator[tuple[str, Callable[[Tensors], Score]]]:
    """Everything that computes log-probs in bfloat16, from an adapter's tensors."""
    paths: tuple[Literal["merged", "unmerged"], ...] = ("merged", "unmerged")
    for lora_path in paths:
        yield f"engine, {lora_path}", _engine(path, lora_path)
    settings = LearnerSettings(torch_threads=threads, device="cpu")
    yield "learner", _learner(LoraPolicy.load(path, settings, 0))
    theirs = get_peft_model(_load(path, torch.bfloat16), _lora(), autocast_adapter_dtype=False)
    yield "PEFT's own forward", _peft(theirs)


def _engine(path: str, lora_path: Literal["merged", "unmerged"]) -> Callable[[Tensors], Score]:
    tokenizer: Tokenizer = EndlessTokenizer()  # type: ignore[assignment]
    engine = TransformersEngine(_load(path, torch.bfloat16), tokenizer, lora_path, 8)
    versions = iter(range(1000))

    def forward(tensors: Tensors) -> Score:
        version = next(versions)
        engine.load_adapter(adapter_of(version, tensors, R))
        return lambda tokens_P: engine.score(tokens_P, version)

    return forward


def _learner(policy: LoraPolicy) -> Callable[[Tensors], Score]:
    def forward(tensors: Tensors) -> Score:
        policy.load_adapter_bytes(safetensors.torch.save(tensors))
        return policy.sequence_logprobs

    return forward


def _peft(model: PeftModel) -> Callable[[Tensors], Score]:
    model.train(False)

    def forward(tensors: Tensors) -> Score:
        _put(model, tensors)
        return _plain(model)

    return forward


if __name__ == "__main__":
    main()
