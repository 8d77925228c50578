"""Adapters that do not fit are refused, and what does not fit is named."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from actors.engines.torch_decoding.lora_weights import read_lora
from tests.tiny_policy import TARGETS, adapter_of, lora_tensors, tiny_llama

A = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
B = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"


def layers() -> dict[str, nn.Linear]:
    return {path: module for path, module in tiny_llama().named_modules() if isinstance(module, nn.Linear)}


def refuse(tensors: dict[str, Tensor], message: str, targets: Sequence[str] = TARGETS, r: int = 4) -> None:
    with pytest.raises(ValueError, match=message):
        read_lora(adapter_of(3, tensors, targets=targets, r=r), layers(), "lm_head")


def test_every_pair_arrives_by_module_path_with_the_scale() -> None:
    weights = read_lora(adapter_of(3, lora_tensors(tiny_llama())), layers(), "lm_head")
    assert len(weights.pairs) == 14
    assert weights.scale == 2.0
    assert weights.pairs["model.layers.1.mlp.up_proj"].b_OK.shape == (48, 4)


def test_tensors_of_another_model_are_refused_by_name() -> None:
    tensors = lora_tensors(tiny_llama())
    tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 32)
    refuse(tensors, r"v000003-.*: 1 tensors belong to no linear layer of this model: .*layers\.9\.mlp\.up_proj")


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.lora_A.weight", A.replace(".weight", ".default.weight")])
def test_names_that_are_not_pefts_are_refused(name: str) -> None:
    tensors = lora_tensors(tiny_llama())
    tensors[name] = tensors.pop(A)
    refuse(tensors, "1 tensors belong to no linear layer")


def test_an_adapter_that_matches_no_module_is_refused() -> None:
    refuse({}, "matches no layer of this model, it holds 0 tensors")


def test_wrong_shapes_are_refused_with_the_shape_needed() -> None:
    tensors = lora_tensors(tiny_llama())
    tensors[A] = torch.zeros(4, 31)
    refuse(tensors, r"1 layers do not fit: model\.layers\.1\.mlp\.up_proj\.lora_A is \(4, 31\), needs \(4, 32\)")


def test_a_rank_that_is_not_the_manifests_is_refused() -> None:
    refuse(lora_tensors(tiny_llama(), r=4), r"28 layers do not fit: .*is \(4, 32\), needs \(8, 32\).* and 24 more", r=8)


def test_half_a_pair_is_refused() -> None:
    tensors = lora_tensors(tiny_llama())
    del tensors[B]
    refuse(tensors, r"up_proj\.lora_B is None, needs \(48, 4\)")


def test_a_target_layer_without_tensors_is_refused() -> None:
    tensors = lora_tensors(tiny_llama())
    del tensors[A], tensors[B]
    refuse(tensors, r"model\.layers\.1\.mlp\.up_proj has no tensors but is a target")
    refuse(tensors, r"up_proj has no tensors but is a target", targets=("all-linear",))


def test_a_target_that_names_no_layer_is_refused() -> None:
    refuse(lora_tensors(tiny_llama()), "target 'c_attn' names no linear layer", targets=(*TARGETS, "c_attn"))


def test_all_linear_leaves_the_head_out() -> None:
    weights = read_lora(adapter_of(3, lora_tensors(tiny_llama()), targets=("all-linear",)), layers(), "lm_head")
    assert "lm_head" not in weights.pairs


def test_weights_that_are_not_finite_are_refused() -> None:
    tensors = lora_tensors(tiny_llama())
    tensors[B][0, 0] = torch.nan
    refuse(tensors, r"up_proj\.lora_B is not finite")
