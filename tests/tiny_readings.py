"""Settings of tiny models by how they can be read: with a cache as it is, or in a slower way alone (see exam.proof)."""

from __future__ import annotations

from typing import Any

from tiny_families import SHAPE

GROUPED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 3}
STATES = {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}
# What the tables of tiny families lack: a sliding window shorter than the prompts, mixtures of experts, a text model
# inside a multimodal one, and recurrent states, of which the first lists can be read with a cache as it is.
FURTHER: dict[str, dict[str, Any]] = {
    "mistral": {**SHAPE, "num_key_value_heads": 2, "sliding_window": 4},
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention", "conv"]},
    "gemma3": {
        "text_config": {**GROUPED, "sliding_window": 4, "query_pre_attn_scalar": 8},
        "vision_config": {
            **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            **{"image_size": 28, "patch_size": 14},
        },
    },
    "qwen3_next": {
        **SHAPE,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 0,
        "layer_types": ["linear_attention", "full_attention"],
    },
}
# Read in a slower way: see what is wrong with a cache in each.
SLOWER: dict[str, tuple[str, dict[str, Any]]] = {
    "bamba": (
        "explicit positions",
        {
            **{**GROUPED, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1},
            **{"mamba_d_state": 8, "mamba_chunk_size": 8},
        },
    ),
    "jamba": (
        "a cache, token by token",
        {**GROUPED, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_dt_rank": 4},
    ),
    "minimax": ("without a cache", {**GROUPED, "block_size": 4, "num_local_experts": 2}),
    "mamba": ("without a cache", STATES),
    "falcon_mamba": ("without a cache", STATES),
    "recurrent_gemma": (
        "without a cache",
        {**GROUPED, "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16},
    ),
    "rwkv": ("without a cache", {**STATES, "attention_hidden_size": 32, "context_length": 128}),
    "xlstm": ("without a cache", {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "chunk_size": 16}),
    "openai-gpt": ("without a cache", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}),
}
