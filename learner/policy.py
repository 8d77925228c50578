"""The policy: a frozen base model with one LoRA adapter, and the two readings of it that the learner needs.

    LoraPolicy.load -> score(micro-batch) -> log-probs and entropies at policy tokens -> losses -> MasterWeights

The reference policy is the same model with the adapter off (`reference`), so there is one copy of the base weights.
Simplified away: adapters on embeddings and the output head, and models that post-process logits (soft caps, scales):
`load` compares our log-probs and gradients with the model's own (self_check.py) and refuses what does not agree.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from contracts.adapter import LoraShape
from contracts.errors import DataError
from learner.adapter_size import adapter_norm, base_norm, some_rows
from learner.compute_dtype import computed_in
from learner.config import LearnerSettings
from learner.head_output import changed_output
from learner.lora_forward import lora_layers, sum_once
from learner.merged_survival import survival
from learner.packing import MicroBatch, TrainRow, pack
from learner.self_check import refuse_conv1d, settle
from learner.shared_prefix import packed_hidden, padded_hidden
from learner.token_logprobs import token_logprobs
from learner.token_table import TokenTable, token_table
from loading.device import cards, choose_device
from loading.load_errors import loading
from loading.whole_model import WANTED, refuse_holes, refuse_no_numbers

_ADAPTER = "default"
_TARGETS = (
    "learner.lora_targets names linear layers of the model by the last part of their names, or 'all_linear'; name others, or "
    "choose another base model"
)


class LoraPolicy:
    """base_model: as given to `load`. lora: what an engine must know. adapter_parameters: trainable, PEFT's names.
    plain_rows: why each row carries its prompt although learner.shared_prefix is on; empty where it does not."""

    def __init__(self, model: PeftModel, base_model: str, settings: LearnerSettings) -> None:
        self._model = model
        self._settings = settings
        causal = model.get_base_model()
        assert isinstance(causal, PreTrainedModel)
        self._causal = causal
        self._backbone: nn.Module = causal.base_model
        self.base_model = base_model
        config = model.peft_config[_ADAPTER]
        assert isinstance(config, LoraConfig)
        # PEFT spells the targets of "all-linear" out layer by layer; the last name part says the same.
        targets = tuple(sorted({name.split(".")[-1] for name in config.target_modules or ()}))
        self.lora = LoraShape(config.r, float(config.lora_alpha), targets)
        self.adapter_parameters: dict[str, nn.Parameter] = {
            name.replace(f".{_ADAPTER}.", "."): p for name, p in model.named_parameters() if p.requires_grad
        }
        head: object = self._causal.get_output_embeddings()  # type: ignore[no-untyped-call]
        assert isinstance(head, nn.Linear)
        if "bias" in dict(head.named_parameters()):
            raise DataError(
                f"{base_model}: the output head has a bias, which the chunked log-probs do not add. Choose another base model"
            )
        self._head_VD: Tensor = head.weight
        self.shares_prompts, self.plain_rows = settings.shared_prefix, ""

    @classmethod
    def load(cls, model_path: str, settings: LearnerSettings, seed: int) -> "LoraPolicy":
        """model_path: folder or hub id. seed: of the adapter's first matrices (B = 0, so version 0 is the base model).

        Raises DataError where the model cannot be read or does not agree with our log-probs of it.
        """
        torch.set_num_threads(settings.torch_threads)
        with loading(
            f"cannot load the model {model_path}", "Its files must be whole, and of a kind that transformers reads"
        ):
            found: Any = AutoModelForCausalLM.from_pretrained(
                model_path, dtype=getattr(torch, settings.dtype), trust_remote_code=False, **WANTED
            )
        base, info = found
        refuse_holes(model_path, info, base)
        refuse_no_numbers(model_path, base.named_parameters())
        nn.Module.to(base, device_of(settings))
        return cls.around(base, model_path, settings, seed)

    @classmethod
    def around(cls, base: PreTrainedModel, base_model: str, settings: LearnerSettings, seed: int) -> "LoraPolicy":
        """The same from a model in memory."""
        refuse_conv1d(base, base_model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _adapted(base, base_model, settings)
        sum_once(model, _ADAPTER)
        model.eval()
        for name, module in model.named_modules():
            # Only the adapter's own dropout acts in training; the base model stays deterministic.
            if "lora_dropout" in name:
                module.train()
        policy = cls(model, base_model, settings)
        policy.check_against_model()
        return policy

    @property
    def device(self) -> torch.device:
        return self._head_VD.device

    @property
    def vocabulary(self) -> int:
        """Entries of the output head."""
        return len(self._head_VD)

    @property
    def dtype_name(self) -> str:
        return str(self._head_VD.dtype).removeprefix("torch.")

    def score(self, batch: MicroBatch) -> tuple[TokenTable, Tensor, Tensor]:
        """The batch's policy tokens with log-prob and entropy of each, [N] float32; differentiable in the adapter."""
        table = token_table(batch.rows, self.device)
        hidden = packed_hidden if self.shares_prompts else padded_hidden
        logprob_N, entropy_N = token_logprobs(
            hidden(self._backbone, batch, table),
            self._head_VD,
            table.target_N,
            table.temperature_N,
            self._settings.logprob_chunk_tokens,
            entropy_gradient=self._settings.entropy_weight > 0,
        )
        return table, logprob_N, entropy_N

    def logprobs(self, batch: MicroBatch) -> Tensor:
        """[N] float32 of the batch's policy tokens, without gradient and without dropout."""
        with torch.no_grad(), self._without_dropout():
            return self.score(batch)[1]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the adapter is off: the policy is the base model."""
        with self._model.disable_adapter():
            yield

    @contextmanager
    def computed_in(self, dtype_name: str) -> Iterator[None]:
        """Inside, log-probs are computed in another data type from the same weights (learner/compute_dtype.py)."""
        own, dtype = self._head_VD, getattr(torch, dtype_name)
        if own.dtype == dtype:
            yield
            return
        self._head_VD = own.to(dtype)
        try:
            with computed_in(self._causal, dtype):
                yield
        finally:
            self._head_VD = own

    @contextmanager
    def amplified(self, factor: float) -> Iterator[None]:
        """Inside, the adapter's effect on every layer is multiplied by factor."""
        scalings = [m.scaling for m in self._model.modules() if isinstance(m, LoraLayer)]
        own = [scaling[_ADAPTER] for scaling in scalings]
        try:
            for scaling, value in zip(scalings, own, strict=True):
                scaling[_ADAPTER] = value * factor
            yield
        finally:
            for scaling, value in zip(scalings, own, strict=True):
                scaling[_ADAPTER] = value

    def relative_size(self) -> float:
        """The adapter against the weights it adapts: median over layers of |scale B A| / |W|, Frobenius norms."""
        layers = [m for m in self._model.modules() if isinstance(m, LoraLayer)]
        ratios = [adapter_norm(layer, _ADAPTER) / norm for layer, norm in zip(layers, self._base_norms, strict=True)]
        return float(torch.stack(ratios).median())

    @cached_property
    def _base_norms(self) -> list[Tensor]:
        """Of the frozen weights, in the order of the layers: they never change, so they are read once."""
        return [base_norm(m) for m in self._model.modules() if isinstance(m, LoraLayer)]

    def sequence_logprobs(self, tokens_P: NDArray[np.int32]) -> NDArray[np.float32]:
        """[P] log p(token i | tokens before i) at temperature 1; entry 0 is 0."""
        return self.sequences_logprobs([tokens_P])[0]

    def sequences_logprobs(self, sequences: Sequence[NDArray[np.int32]]) -> list[NDArray[np.float32]]:
        """The same of several, packed as in training."""
        found = [np.zeros(len(tokens_P), np.float32) for tokens_P in sequences]
        rows = {i: _whole_sequence(tokens_P) for i, tokens_P in enumerate(sequences) if len(tokens_P) > 1}
        index = {id(row): i for i, row in rows.items()}
        for batch in pack([[row] for row in rows.values()], self._settings.micro_batch_tokens, self.shares_prompts):
            ends = np.cumsum([len(row.tokens_T) for row in batch.rows])[:-1]
            for row, logprobs_T in zip(batch.rows, np.split(self.logprobs(batch).cpu().numpy(), ends), strict=True):
                found[index[id(row)]][1:] = logprobs_T
        return found

    def merged_survival(self) -> float:
        """Share of the adapter that bfloat16 weights would keep if it were merged into them (merged_survival.py), from
        at most SURVIVAL_ROWS evenly spaced rows of every adapted layer."""
        return survival((some_rows(layer, _ADAPTER) for layer in lora_layers(self._model)), torch.bfloat16)

    def adapter_bytes(self) -> bytes:
        """The adapter as safetensors with PEFT's names, in the base dtype."""
        return tensors_to_bytes({name: p.detach().contiguous() for name, p in self.adapter_parameters.items()})

    def load_adapter_bytes(self, weights: bytes) -> None:
        """Raises ValueError where names or shapes are not this adapter's."""
        tensors = tensors_from_bytes(weights)
        expected = {name: tuple(p.shape) for name, p in self.adapter_parameters.items()}
        found = {name: tuple(t.shape) for name, t in tensors.items()}
        if found != expected:
            different = sorted(set(expected.items()) ^ set(found.items()))
            raise ValueError(f"adapter does not fit {self.base_model}, first difference: {different[0]}")
        with torch.no_grad():
            for name, parameter in self.adapter_parameters.items():
                parameter.copy_(tensors[name])

    def check_against_model(self) -> None:
        """Settles how rows are laid out. Raises DataError where no way gives the model's own numbers (self_check.py)."""
        with self._without_dropout():
            self.plain_rows = settle(self, self._causal.config, self._settings.shared_prefix)

    def own_logprobs(self, row: TrainRow) -> Tensor:
        """[T] of the row's tokens by the model's own forward of this row alone: the oracle of `score`."""
        tokens_P = np.concatenate([row.prompt_P, row.tokens_T]).astype(np.int64)
        ids_1P = torch.from_numpy(tokens_P)[None].to(self.device)
        logits_TV = self._causal(input_ids=ids_1P, use_cache=False).logits[0, len(row.prompt_P) - 1 : -1]
        return torch.log_softmax(logits_TV.float(), -1).gather(1, ids_1P[0, len(row.prompt_P) :, None])[:, 0]

    def changed_output(self) -> str:
        """What the model makes of its head's output beside logits (head_output.py)."""
        with self._model.disable_adapter():
            return changed_output(self._causal)

    def attend_with(self, implementation: str) -> None:
        """Raises ValueError where the model does not take it."""
        self._causal.set_attn_implementation(implementation)

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        dropouts = [m for name, m in self._model.named_modules() if "lora_dropout" in name and m.training]
        for module in dropouts:
            module.eval()
        try:
            yield
        finally:
            for module in dropouts:
                module.train()


def _adapted(base: PreTrainedModel, base_model: str, settings: LearnerSettings) -> PeftModel:
    targets = settings.lora_targets
    config = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear" if targets == "all_linear" else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with (
        loading(f"{base_model}: no adapter fits learner.lora_targets = {targets}", _TARGETS),
        warnings.catch_warnings(),
    ):
        # Of experts whose weights are one tensor: PEFT knows their old names, looks for them and warns of none.
        warnings.filterwarnings("ignore", message=r"target_parameters=|The following (rank|alpha)_pattern keys")
        model = get_peft_model(base, config, autocast_adapter_dtype=False)
    assert isinstance(model, PeftModel)
    return model


def device_of(settings: LearnerSettings) -> torch.device:
    """Raises ConfigError where a card is there, or asked for, that torch cannot use."""
    usable, built_for = torch.cuda.is_available(), torch.version.cuda
    device = choose_device(settings.device, "learner.device", usable=usable, built_for=built_for, there=cards())
    return torch.device(device)


def _whole_sequence(tokens_P: NDArray[np.int32]) -> TrainRow:
    """The sequence as a rollout whose prompt is its first token."""
    rest = len(tokens_P) - 1
    zeros_T, ones_T = np.zeros(rest, np.float32), np.ones(rest, np.bool_)
    return TrainRow(tokens_P[:1], tokens_P[1:], zeros_T, ones_T, advantage=0.0, temperature=1.0, lag=0)
