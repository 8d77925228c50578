"""Tiny random models of many architectures: two or three layers, one of every kind that the architecture has."""

from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 61

_PLAIN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "initializer_range": 0.2,
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_DELTA = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_WINDOWS = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1, "first_k_dense_replace": 1}
_NARROW_LAYERS = {"num_hidden_layers": 5, "intermediate_size": [48] * 5, "activation_sparsity_pattern": [0.0] * 5}
_ONE_HEAD_SIZE = {name: value for name, value in _PLAIN.items() if name != "num_key_value_heads"}
_POSITIONS = {"max_position_embeddings": 64}

TOYS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _PLAIN),
    "olmo2": ("Olmo2Config", _PLAIN),
    "phi3": ("Phi3Config", _PLAIN),
    "lfm2": (
        "Lfm2Config",
        _PLAIN
        | {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
        | {"block_auto_adjust_ff_dim": False},
    ),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        _PLAIN
        | _MAMBA
        | {"layer_types": ["mamba", "attention"], "num_local_experts": 0, "shared_intermediate_size": 48}
        | {"position_embedding_type": "rope"},
    ),
    "bamba": ("BambaConfig", _PLAIN | _MAMBA | {"attn_layer_indices": [1]}),
    "qwen3_next": ("Qwen3NextConfig", _PLAIN | _DELTA | {"num_experts": 0, "mlp_only_layers": [0, 1]}),
    "qwen3_5_text": ("Qwen3_5TextConfig", _PLAIN | _DELTA),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        _PLAIN
        | {"num_hidden_layers": 3, "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 3}
        | {"block_types": ["recurrent", "recurrent", "attention"]},
    ),
    "gemma3, window 3": ("Gemma3TextConfig", _PLAIN | _WINDOWS | {"sliding_window": 3}),
    "gemma3, window 2": ("Gemma3TextConfig", _PLAIN | _WINDOWS | {"sliding_window": 2}),
    "mistral, window 3": ("MistralConfig", _PLAIN | {"head_dim": 8, "sliding_window": 3}),
    "gemma2": ("Gemma2Config", _PLAIN | {"head_dim": 8, "sliding_window": 2}),
    "gemma2, scores capped alone": (
        "Gemma2Config",
        _PLAIN | {"head_dim": 8, "sliding_window": 2, "final_logit_softcapping": None, "attn_logit_softcapping": 2.0},
    ),
    "gpt_oss": ("GptOssConfig", _PLAIN | _WINDOWS | {"sliding_window": 3, "num_local_experts": 4}),
    "cohere2": ("Cohere2Config", _PLAIN | _WINDOWS | {"sliding_window": 3}),
    "stablelm": ("StableLmConfig", _PLAIN),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        | {"bos_token_id": 0, "eos_token_id": 1},
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        _PLAIN | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "mixtral": ("MixtralConfig", _PLAIN | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        _PLAIN
        | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        | {"shared_expert_intermediate_size": 16},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        _PLAIN
        | _EXPERTS
        | {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
        | {"v_head_dim": 8, "n_routed_experts": 4, "n_group": 2, "topk_group": 1},
    ),
    "phi3, longrope": (
        "Phi3Config",
        _PLAIN
        | {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
        | {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.1] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 64,
                "partial_rotary_factor": 1.0,
            }
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", _ONE_HEAD_SIZE | _POSITIONS),
    "opt": ("OPTConfig", _ONE_HEAD_SIZE | _POSITIONS | {"ffn_dim": 48, "word_embed_proj_dim": 16, "init_std": 0.2}),
    "mpt": (
        "MptConfig",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 2, "initializer_range": 0.2},
    ),
    "jamba": (
        "JambaConfig",
        _PLAIN
        | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
        | {"num_experts": 4, "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    ),
    "zamba2": (
        "Zamba2Config",
        _PLAIN
        | {"num_hidden_layers": 3, "num_key_value_heads": 4, "n_mamba_heads": 8, "mamba_headdim": 8, "chunk_size": 8}
        | {"mamba_d_state": 8, "mamba_ngroups": 1, "layers_block_type": ["mamba", "hybrid", "mamba"]}
        | {"num_mem_blocks": 1, "adapter_rank": 4, "hybrid_layer_ids": [1], "use_mamba_kernels": False},
    ),
    "falcon_h1": ("FalconH1Config", _PLAIN | _MAMBA | {"mamba_d_ssm": 64, "head_dim": 8}),
    "gemma3n": (
        "Gemma3nTextConfig",
        _PLAIN
        | _NARROW_LAYERS
        | {"head_dim": 8, "layer_types": [*["sliding_attention"] * 4, "full_attention"], "sliding_window": 3}
        | {"vocab_size_per_layer_input": 128, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
        | {"laurel_rank": 4},
    ),
    "granite": ("GraniteConfig", _PLAIN | {"logits_scaling": 8.0}),
    "gptj": (
        "GPTJConfig",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4}
        | {"bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.2},
    ),
    "bert": ("BertConfig", _ONE_HEAD_SIZE | _POSITIONS),
    "modernbert-decoder": (
        "ModernBertDecoderConfig",
        _ONE_HEAD_SIZE
        | {"layer_types": ["sliding_attention", "full_attention"], "local_attention": 4, "bos_token_id": 2}
        | {"cls_token_id": 2, "sep_token_id": 1},
    ),
    "minimax": (
        "MiniMaxConfig",
        _PLAIN
        | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 8}
        | {"layer_types": ["linear_attention", "full_attention"]},
    ),
    "rwkv": (
        "RwkvConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}
        | {"intermediate_size": 48, "context_length": 64},
    ),
    "xlstm": (
        "xLSTMConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_blocks": 2, "num_heads": 2}
        | {"qk_dim_factor": 1.0, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1},
    ),
    "mamba2": (
        "Mamba2Config",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8}
        | {"state_size": 8, "n_groups": 1, "chunk_size": 8},
    ),
}


def toy(name: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """The same weights for the same seed, whatever the data type."""
    class_name, fields = TOYS[name]
    config = getattr(transformers, class_name)(**(fields | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.train(False)
    nn.Module.to(model, dtype)
    return model
