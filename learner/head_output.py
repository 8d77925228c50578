"""Whether a model's logits are what its output head gives. Soft caps and scales are looked for where they are large.

    a ramp of numbers in the place of what the head gives -> the model's own forward -> the same ramp, or what became of it

The learner takes log-probs from the head alone. A cap at 30 moves those of an untrained head by 2e-3 nats and those of a trained
one by whole nats, so log-probs of one moment do not show it; its setting has another name in every family.

Shape letters: V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

LARGE = 100.0
"""Beyond the logits of language models (10 to 50) and beyond any cap."""
SAME = 1e-3
"""Relative. Nothing at all happens to the logits of most models, so they come back bit by bit."""


@torch.no_grad()
def changed_output(causal: PreTrainedModel) -> str:
    """What becomes of the logit that is changed most, in words; empty where they stay as they are, and for a model that does not
    call its head as a module. Raises what the model's own forward raises."""
    head: Any = causal.get_output_embeddings()  # type: ignore[no-untyped-call]
    given: list[Tensor] = []

    def ramp(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        ramp_V = torch.linspace(-LARGE, LARGE, output.shape[-1]).to(output)
        given.append(ramp_V)
        return ramp_V.expand_as(output)

    hook = head.register_forward_hook(ramp)
    try:
        ids_12 = torch.ones(1, 2, dtype=torch.long, device=causal.device)
        logits_V: Tensor = causal(input_ids=ids_12, use_cache=False).logits[0, -1].float()
    finally:
        hook.remove()
    if not given:
        return ""
    ramp_V = given[-1].float()
    apart_V = (logits_V - ramp_V).abs()
    if bool((apart_V <= SAME * LARGE).all()):
        return ""
    most = int(apart_V.argmax())
    became = abs(float(logits_V[most]))
    return f"it changes what its output head gives: {abs(float(ramp_V[most])):.4g} becomes {became:.4g}"
