"""The engine for a CPU or one GPU: a transformers causal model and our own decoding loop.

One call: requests -> batches -> (prefill, then sample and step until every row has ended) -> generations.
Prompts are prefilled once per request and shared by its samples; finished rows leave the batch.

Shape letters: N prompts of a batch, R live rows, T sampled tokens, V vocabulary.
Simplified: a batch's free rows are not refilled by the next batch's samples; a later turn of a rollout prefills its
whole history again.
"""

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from actors.engines.torch_decoding.batch_rows import BatchRows
from actors.engines.torch_decoding.decode_batches import Slice, plan_batches
from actors.engines.torch_decoding.decoder_check import choose_decoder
from actors.engines.torch_decoding.decoders import prefill
from actors.engines.torch_decoding.lora_paths import LoraPath, MergedLora, UnmergedLora
from actors.engines.torch_decoding.lora_weights import LoraWeights, read_lora
from contracts.adapter import Adapter
from contracts.errors import AdapterMissingError, EngineError
from contracts.ports import Generation, GenerationRequest, Tokenizer
from loading.load_errors import error_text, out_of_memory


class TransformersEngine:
    """contracts.ports.Engine over a transformers model. Not thread-safe: one owner calls it."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        lora_path: Literal["merged", "unmerged"],
        max_batch_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        model.train(False)
        model.requires_grad_(False)
        self._pad_token_id = tokenizer.pad_token_id
        self._eos = torch.tensor(sorted(tokenizer.eos_token_ids), device=model.device)
        self._max_rows = max_batch_rows
        self._clock = clock
        self._layers = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._head = next((path for path, layer in self._layers.items() if layer is head), None)
        self._new_decoder = choose_decoder(model)
        self._lora: LoraPath = MergedLora(self._layers) if lora_path == "merged" else UnmergedLora(self._layers)
        self._versions: dict[int, LoraWeights] = {}
        self._active: int | None = None

    def load_adapter(self, adapter: Adapter) -> None:
        """Raises ValueError, naming tensors and layers, for an adapter that does not fit the model exactly."""
        version = adapter.manifest.policy_version
        if version not in self._versions:
            weights = read_lora(adapter, self._layers, self._head)
            self._versions[version] = weights.to(self._model.device)

    def drop_adapter(self, policy_version: int) -> None:
        self._versions.pop(policy_version, None)
        if self._active == policy_version:
            self._active = None

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        """Rows unfinished `deadline_s` seconds from now end as TIMEOUT with the tokens they have."""
        ends_at = self._clock() + deadline_s
        self._activate(policy_version)
        results: list[list[Generation]] = [[] for _ in requests]
        batches = plan_batches([len(r.prompt_P) for r in requests], [len(r.seeds) for r in requests], self._max_rows)
        for batch in batches:
            for piece, generations in zip(batch, self._decode(requests, batch, ends_at), strict=True):
                results[piece.request] += generations
        return results

    @torch.inference_mode()
    def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        self._activate(policy_version)
        tokens_1P = torch.from_numpy(tokens_P.astype(np.int64))[None].to(self._model.device)
        logits_PV = self._forward(tokens_1P)[0, :-1].float()
        picked_P = logits_PV.gather(1, tokens_1P[0, 1:, None])[:, 0] - logits_PV.logsumexp(dim=-1)
        return np.concatenate([np.zeros(1, np.float32), picked_P.cpu().numpy()])

    def _activate(self, policy_version: int) -> None:
        if policy_version not in self._versions:
            raise AdapterMissingError(
                f"engine holds adapters {sorted(self._versions)}, not version {policy_version}; adopt it first"
            )
        if self._active != policy_version:
            self._active = None  # a failure half-way must not leave a mixture that counts as loaded
            self._lora.use(self._versions[policy_version])
            self._active = policy_version

    def _decode(
        self, requests: Sequence[GenerationRequest], batch: list[Slice], ends_at: float
    ) -> list[list[Generation]]:
        rows = BatchRows(requests, batch, self._eos)
        if self._clock() < ends_at:
            try:
                self._run(rows, [requests[piece.request].prompt_P for piece in batch], ends_at)
            except (RuntimeError, IndexError) as error:
                hint = "; lower actors.max_batch_rows" if out_of_memory(error) else ""
                raise EngineError(f"decoding {len(rows)} rows failed: {error_text(error)}{hint}") from error
        return rows.generations()

    def _run(self, rows: BatchRows, prompts: list[NDArray[np.int32]], ends_at: float) -> None:
        cache, mask_NP, logits_NV = prefill(self._model, prompts, self._pad_token_id)
        decoder = self._new_decoder(self._model, cache, mask_NP, rows.prompts)
        logits_RV = logits_NV[rows.prompts]
        while True:
            tokens_R = rows.sample(logits_RV)
            if rows.num_live == 0 or self._clock() >= ends_at:
                return
            kept_R = rows.compact()
            if kept_R is not None:
                decoder.keep(kept_R)
                tokens_R = tokens_R[kept_R]
            logits_RV = decoder.step(tokens_R)

    def _forward(self, tokens_1P: Tensor) -> Tensor:
        try:
            logits: Tensor = self._model(input_ids=tokens_1P, use_cache=False).logits
        except (RuntimeError, IndexError) as error:
            raise EngineError(f"scoring {tokens_1P.shape[1]} tokens failed: {error_text(error)}") from error
        return logits
