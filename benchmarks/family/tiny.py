"""A tiny model of every causal family that the installed transformers knows, made by shrinking its default config.

Sizes are found by the names of the config's fields, in sub-configs too. Where that is not enough (head widths that have
to agree, lists by layer, periods of hybrids), what else is needed stands in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WIDTH = 32
LAYERS = 4
WINDOW = 8
"""Shorter than the prompts, so that windows count."""

_SIZES = (
    (
        WIDTH,
        "hidden_size d_model n_embd dim embed_dim emb_dim embedding_dim word_embed_proj_dim "
        "attention_hidden_size lru_width encoder_hidden_size decoder_hidden_size vision_output_dim "
        "text_hidden_size input_embedding_size output_embedding_size backbone_hidden_size",
    ),
    (
        2 * WIDTH,
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner dff dim_ff d_inner ffn_hidden_size "
        "feed_forward_size intermediate_size_mlp dense_intermediate_size mlp_dim",
    ),
    (
        WIDTH // 2,
        "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size "
        "shared_intermediate_size moe_shared_expert_intermediate_size attention_head_dim router_hidden_size",
    ),
    (
        LAYERS,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_blocks "
        "num_decoder_layers num_encoder_layers num_attention_heads n_head n_heads num_heads "
        "decoder_attention_heads encoder_attention_heads attention_heads num_encoder_attention_heads "
        "num_decoder_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts "
        "mamba_n_heads mamba_num_heads linear_num_value_heads linear_num_heads swa_num_attention_heads "
        "num_experts_per_layer n_mamba_heads state_size mamba_d_state ssm_state_size "
        "time_step_rank mamba_dt_rank index_topk",
    ),
    (
        2,
        "num_key_value_heads num_kv_heads num_experts_per_tok num_experts_per_token moe_k moe_topk depth "
        "linear_num_key_heads swa_num_key_value_heads zero_expert_num",
    ),
    (
        8,
        "head_dim kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim dim_head kv_channels "
        "mamba_d_head mamba_head_dim linear_key_head_dim linear_value_head_dim swa_head_dim index_head_dim "
        "attention_head_size linear_head_dim o_lora_rank gated_norm_rank d_rel adapter_rank "
        "hidden_size_per_layer_input d_kv d_head rotary_dim chunk_size mamba_chunk_size block_size",
    ),
    (
        WINDOW,
        "sliding_window window_size attention_window_size attention_chunk_size local_attention "
        "sliding_window_size local_attention_window_len",
    ),
    (160, "max_position_embeddings n_positions n_ctx max_target_positions context_length model_max_length"),
    (4 * LAYERS, "index_n_heads"),  # fewer, and scores behind a ReLU are often equal: all zero
    (1, "n_group topk_group n_groups mamba_n_groups first_k_dense_replace moe_layer_start_index"),
)
_BY_NAME = {name: size for size, names in _SIZES for name in names.split()}


def family_names() -> tuple[str, ...]:
    """Every family that ``AutoModelForCausalLM`` serves."""
    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def shrunk(config: PretrainedConfig, vocabulary: int) -> dict[str, Any]:
    """Keyword arguments that make a tiny config of the same kind."""
    found: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        inner = vars(config).get(name)
        if isinstance(inner, PretrainedConfig):
            found[name] = shrunk(inner, vocabulary)
            if hasattr(inner, "model_type"):
                found[name]["model_type"] = inner.model_type
        elif name in ("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size", "unpadded_vocab_size"):
            found[name] = vocabulary
        elif name in ("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id"):
            found[name] = 0
        elif name == "pad_token_id":
            found[name] = 1
        elif name == "is_decoder":
            found[name] = True
        elif name in _BY_NAME and value and isinstance(value, int) and not isinstance(value, bool):
            found[name] = _BY_NAME[name] if "layer" in name else min(value, _BY_NAME[name])
        elif isinstance(value, float) and any(part in name for part in ("drop", "jitter")):
            found[name] = 0.0  # passes of training and of evaluation are compared
        elif name == "head_dim" and value is None:
            found[name] = 8
    if "kv_lora_rank" in found and "num_key_value_heads" in found:  # latent attention has no groups of heads
        found["num_key_value_heads"] = found["num_attention_heads"]
    return found


_HYBRID = ["linear_attention", "full_attention"] * 2
_WINDOWS = ["sliding_attention", "full_attention"] * 2
_GEMMA_4 = {"layer_types": _WINDOWS, "global_head_dim": 16, "sliding_window": WINDOW}
_QWEN_4 = {
    **{"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8},
    **{"indexer_compress_ratio": 2, "hc_lowrank": 8, "ple_layer_ids": [1], "heads_per_ngram": 2, "ple_embed_dim": 32},
    **{"ngram_vocab_size_base": 64, "split_ngram_parts": 1, "make_ngram_vocab_size_divisible_by": 2},
}

EXTRA: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": _HYBRID, "num_expert_group": 1},
    "bamba": {"attn_layer_indices": [1, 3], "mamba_d_head": 16},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "deepseek_v4": {"layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"] * 2},
    "gptj": {"rotary_dim": 4},
    "gemma3": {"text_config": {"layer_types": _WINDOWS}},
    "gemma3_text": {"layer_types": _WINDOWS},
    "gemma3n_text": {"layer_types": _WINDOWS, "num_kv_shared_layers": 2},
    "gemma4": {"text_config": _GEMMA_4},
    "gemma4_text": {**_GEMMA_4, "num_kv_shared_layers": 2},
    "gemma4_unified": {"text_config": _GEMMA_4},
    "gemma4_unified_text": _GEMMA_4,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "dots3_note_text": {
        **{"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 8, "swa_kv_lora_rank": 8},
        **{"swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8, "sliding_window": WINDOW},
        "shared_experts_intermediate_size": 16,
    },
    "falcon_h1": {"mamba_d_head": 16, "mamba_d_ssm": 64},
    "granitemoehybrid": {"layer_types": _HYBRID, "mamba_d_head": 16},
    "inkling2_text": {"layer_types": ["hybrid_sliding", "hybrid"] * 2},
    "inkling_text": {"layer_types": ["hybrid_sliding", "hybrid"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": _HYBRID},
    "kolibri1": {"layer_types": _WINDOWS},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm3": {"layer_types": ["conv", "sliding_attention", "conv", "full_attention"]},
    "mamba2": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp": {"text_config": _QWEN_4},
    "qwen4_exp_text": _QWEN_4,
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh"] * 2},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_hidden_size": 64},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
}


def merged(base: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings laid over others."""
    found = dict(base)
    for name, value in more.items():
        nested = isinstance(value, Mapping) and isinstance(found.get(name), dict) and name.endswith("config")
        found[name] = merged(found[name], value) if nested else value
    return found


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build(name: str, vocabulary: int, seed: int = 0) -> PreTrainedModel:
    """A random float32 model of a family in evaluation mode, with weights strong enough to matter."""
    kind = CONFIG_MAPPING[name]
    settings = merged(shrunk(kind(), vocabulary), EXTRA.get(name, {}))
    with _seeded(seed):
        model = AutoModelForCausalLM.from_config(kind(**settings), dtype=torch.float32)
        enliven(model)
    return model.eval()


def enliven(model: PreTrainedModel) -> None:
    """Weights as strong as a trained model's.

    As initialised, blocks hardly change what passes through them, and many a mistake would stay below tolerance.
    Parameters that are no plain weights (decays of state spaces, say) are initialised larger, and left alone.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if not torch.isfinite(parameter).all():
                parameter.zero_()
            if parameter.dim() >= 2 and float(parameter.std()) < 0.06:
                fan_in = parameter.shape[-1]
                parameter.normal_(std=min(0.5, fan_in**-0.5))
            elif parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
