"""The rows of one batch: what each has sampled, which still run, and when each ends.

Sampled tokens and log-probs go into preallocated [rows, steps] matrices; a row leaves the decoder when it has
ended, its record stays here.

Shape letters: R rows still in the decoder, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engines.torch_decoding.decode_batches import Slice, rows_after_compaction
from actors.engines.torch_decoding.sampling import sample_tokens
from actors.seeds import uniforms
from contracts.errors import EngineError
from contracts.ports import Generation, GenerationRequest
from contracts.rollout import FinishReason


class BatchRows:
    """State of every row, from first token to generation."""

    def __init__(self, requests: Sequence[GenerationRequest], batch: Sequence[Slice], eos: Tensor) -> None:
        self._counts = [piece.count for piece in batch]
        cut = [(requests[p.request].seeds[p.first : p.first + p.count], requests[p.request].sampling) for p in batch]
        limits = [sampling.max_new_tokens for seeds, sampling in cut for _ in seeds]
        draws = [uniforms(seed, sampling.max_new_tokens) for seeds, sampling in cut for seed in seeds]
        device = eos.device
        self._uniforms = torch.from_numpy(_padded(draws, max(limits))).to(device)
        self._temperatures = torch.tensor([s.temperature for seeds, s in cut for _ in seeds], device=device)
        self._limits = torch.tensor(limits, device=device)
        self._tokens = torch.zeros(len(limits), max(limits), dtype=torch.long, device=device)
        self._logprobs = torch.zeros(len(limits), max(limits), device=device)
        self._lengths = torch.zeros(len(limits), dtype=torch.long, device=device)
        self._stopped = torch.zeros(len(limits), dtype=torch.bool, device=device)
        self._eos = eos
        self._row_R = torch.arange(len(limits), device=device)
        self._live_R = torch.ones(len(limits), dtype=torch.bool, device=device)
        self._step = 0
        self._work: Tensor | None = None

    def __len__(self) -> int:
        return len(self._limits)

    @property
    def num_live(self) -> int:
        return int(self._live_R.sum())

    @property
    def prompts(self) -> Tensor:
        """Which of the batch's prompts each row continues, [R], ascending."""
        return torch.repeat_interleave(torch.tensor(self._counts)).to(self._eos.device)

    def sample(self, logits_RV: Tensor) -> Tensor:
        """Draw, record and return the next token of every row; rows that already ended draw and are ignored."""
        row_R, step = self._row_R, self._step
        tokens_R, logprobs_R = sample_tokens(
            logits_RV, self._uniforms[row_R, step], self._temperatures[row_R], self._scratch(logits_RV)
        )
        if not bool(torch.isfinite(logprobs_R[self._live_R]).all()):
            raise EngineError(f"non-finite logits at token {step}; the adapter or the model is damaged")
        live_rows = row_R[self._live_R]
        self._tokens[live_rows, step] = tokens_R[self._live_R]
        self._logprobs[live_rows, step] = logprobs_R[self._live_R]
        self._lengths[live_rows] = step + 1
        stopped_R = torch.isin(tokens_R, self._eos)
        self._stopped[live_rows] = stopped_R[self._live_R]
        self._live_R = self._live_R & ~stopped_R & (step + 1 < self._limits[row_R])
        self._step += 1
        return tokens_R

    def compact(self) -> Tensor | None:
        """Positions of the rows to keep when enough have ended, None when all stay."""
        target = rows_after_compaction(self.num_live, len(self._row_R))
        if target == len(self._row_R):
            return None
        first_live = torch.argsort(self._live_R.int(), descending=True, stable=True)
        kept = first_live[:target].sort().values
        self._row_R, self._live_R = self._row_R[kept], self._live_R[kept]
        return kept

    def generations(self) -> list[list[Generation]]:
        """Per slice of the batch, one generation per sample; a row that neither stopped nor filled up timed out."""
        tokens, logprobs = self._tokens.cpu().numpy().astype(np.int32), self._logprobs.cpu().numpy()
        lengths, stopped, limits = self._lengths.tolist(), self._stopped.tolist(), self._limits.tolist()
        results: list[list[Generation]] = []
        row = 0
        for count in self._counts:
            results.append([])
            for index in range(row, row + count):
                end = lengths[index]
                full = FinishReason.LENGTH if end == limits[index] else FinishReason.TIMEOUT
                reason = FinishReason.STOP if stopped[index] else full
                results[-1].append(Generation(tokens[index, :end].copy(), logprobs[index, :end].copy(), reason))
            row += count
        return results

    def _scratch(self, logits_RV: Tensor) -> Tensor:
        if self._work is None:
            self._work = torch.empty_like(logits_RV, dtype=torch.float32)
        return self._work[: len(logits_RV)]


def _padded(draws: list[NDArray[np.float64]], length: int) -> NDArray[np.float64]:
    matrix = np.zeros((len(draws), length))
    for row, numbers in enumerate(draws):
        matrix[row, : len(numbers)] = numbers
    return matrix
