"""Tiny configs of many more families than the shared matrix, with where each keeps its parts written down by hand.

The layout is found without knowing families, so that it must not be its own judge: what is expected stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

WIDTH = 32
LAYERS = 4


@dataclass(frozen=True)
class Family:
    """What a family's tiny model is made of and where its parts are expected.

    Attributes:
        settings: of its config, beside those that all share.
        blocks: path of the list of blocks.
        attention: path within a block.
        mlp_out: path within a block.
        embeddings: paths of all modules with parameters before the blocks.
        after_blocks: paths of all modules with parameters between the blocks and the head.
        head: path of the head, or paths under different versions of transformers.
        tied: whether the head is the input embedding.
        in_out: whether the MLP's weight is (in, out).
        adds: whether the MLP's output is added to the residual stream as it is.
        key_width: input width of the MLP's output projection.
    """

    settings: dict[str, Any]
    blocks: str = "model.layers"
    attention: str = "self_attn"
    mlp_out: str = "mlp.down_proj"
    embeddings: tuple[str, ...] = ("model.embed_tokens",)
    after_blocks: tuple[str, ...] = ("model.norm",)
    head: tuple[str, ...] = ("lm_head",)
    tied: bool = False
    in_out: bool = False
    adds: bool = True
    key_width: int = 2 * WIDTH


SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GROUPED = {**SHAPE, "num_key_value_heads": 2, "tie_word_embeddings": False}
_GEMMA = {**_GROUPED, "head_dim": 8, "tie_word_embeddings": True, "sliding_window": 64}

TABLE: dict[str, Family] = {
    "gpt2": Family(
        {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 128},
        blocks="transformer.h",
        attention="attn",
        mlp_out="mlp.c_proj",
        embeddings=("transformer.wte", "transformer.wpe"),
        after_blocks=("transformer.ln_f",),
        tied=True,
        in_out=True,
        key_width=4 * WIDTH,
    ),
    "gpt_neox": Family(
        {**SHAPE, "tie_word_embeddings": False},
        blocks="gpt_neox.layers",
        attention="attention",
        mlp_out="mlp.dense_4h_to_h",
        embeddings=("gpt_neox.embed_in",),
        after_blocks=("gpt_neox.final_layer_norm",),
        head=("lm_head", "embed_out"),
    ),
    "gptj": Family(
        {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "rotary_dim": 4},
        blocks="transformer.h",
        attention="attn",
        mlp_out="mlp.fc_out",
        embeddings=("transformer.wte",),
        after_blocks=("transformer.ln_f",),
        key_width=4 * WIDTH,
    ),
    "opt": Family(
        {
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "ffn_dim": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        },
        blocks="model.decoder.layers",
        mlp_out="fc2",
        embeddings=("model.decoder.embed_tokens", "model.decoder.embed_positions"),
        after_blocks=("model.decoder.final_layer_norm",),
        tied=True,
    ),
    "bloom": Family(
        {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4},
        blocks="transformer.h",
        attention="self_attention",
        mlp_out="mlp.dense_4h_to_h",
        embeddings=("transformer.word_embeddings", "transformer.word_embeddings_layernorm"),
        after_blocks=("transformer.ln_f",),
        tied=True,
        key_width=4 * WIDTH,
    ),
    "falcon": Family(
        {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4},
        blocks="transformer.h",
        attention="self_attention",
        mlp_out="mlp.dense_4h_to_h",
        embeddings=("transformer.word_embeddings",),
        after_blocks=("transformer.ln_f",),
        tied=True,
        key_width=4 * WIDTH,
    ),
    "llama": Family(_GROUPED),
    "qwen2": Family({**_GROUPED, "tie_word_embeddings": True}, tied=True),
    "qwen3": Family({**_GROUPED, "head_dim": 8, "tie_word_embeddings": True}, tied=True),
    "gemma2": Family({**_GEMMA, "query_pre_attn_scalar": 8}, tied=True, adds=False),
    "gemma3_text": Family({**_GEMMA, "query_pre_attn_scalar": 8}, tied=True, adds=False),
    "phi": Family(
        {**_GROUPED},
        mlp_out="mlp.fc2",
        after_blocks=("model.final_layernorm",),
    ),
    "olmo2": Family(_GROUPED, adds=False),
}


@dataclass(frozen=True)
class Odd:
    """A family whose blocks are built otherwise.

    Attributes:
        settings: of its config, beside those that all share.
        memories: by layer, path within the block and key width, or a pattern of why there is none.
        resumes: whether a pass can begin at any block.
        blocks: path of the list of blocks.
    """

    settings: dict[str, Any]
    memories: tuple[tuple[str, int] | str, ...] = ()
    resumes: bool = True
    blocks: str = "model.layers"


_EXPERTS = {**_GROUPED, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
_SHARED = "beside 'mlp.shared_experts.down_proj', 'mlp.experts' adds"
_NO_MAP = "no linear map back to the hidden width 32 was found outside attention"
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_PER_LAYER = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512, "pad_token_id": 1}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 64, "head_dim": 8}

ODD: dict[str, Odd] = {
    "mixtral": Odd({**_GROUPED, "num_local_experts": 4}, (_NO_MAP,) * LAYERS),
    "deepseek_v3": Odd(
        {**_EXPERTS, **_LATENT, "num_key_value_heads": 4, "first_k_dense_replace": 1, "topk_group": 1},
        (("mlp.down_proj", 2 * WIDTH), *(_SHARED,) * 3),
    ),
    "qwen2_moe": Odd(
        {**_GROUPED, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4},
        ("beside 'mlp.shared_expert.down_proj'",) * LAYERS,
    ),
    "granitemoehybrid": Odd(
        {**_GROUPED, **_MAMBA, "shared_intermediate_size": 16, "num_local_experts": 4, "num_experts_per_tok": 2}
        | {"layer_types": ["mamba", "attention"] * 2},
        ("beside 'shared_mlp.output_linear', 'block_sparse_moe.experts' adds",) * LAYERS,
    ),
    "rwkv": Odd({"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "context_length": 128}, (_NO_MAP,) * LAYERS),
    "bamba": Odd(
        {**_GROUPED, **_MAMBA, "attn_layer_indices": [1, 3], "mamba_expand": 2},
        (("feed_forward.down_proj", 2 * WIDTH),) * LAYERS,
    ),
    "openai-gpt": Odd(
        {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 128},
        (("mlp.c_proj", 4 * WIDTH),) * LAYERS,
        blocks="transformer.h",  # which return lists
    ),
    "mistral": Odd({**_GROUPED, "sliding_window": 4}, (("mlp.down_proj", 2 * WIDTH),) * LAYERS),
    "roberta": Odd(
        {**SHAPE, "is_decoder": True, "pad_token_id": 1},
        (("output.dense", 2 * WIDTH),) * LAYERS,
        blocks="roberta.encoder.layer",  # whose positions begin behind that of the padding
    ),
    "gemma4_text": Odd(
        {**_GROUPED, **_WINDOWS, **_PER_LAYER, "global_head_dim": 8, "num_kv_shared_layers": 2},
        (("mlp.down_proj", 2 * WIDTH),) * LAYERS,
        resumes=False,  # the upper half reads keys and values of the lower
    ),
}
_STACKED = {**_GROUPED, **_WINDOWS, **_PER_LAYER, "altup_num_inputs": 2, "laurel_rank": 4, "num_kv_shared_layers": 0}


def build_odd(name: str, vocabulary: int, seed: int = 0) -> PreTrainedModel:
    """A random model of one of ``ODD``, as strong as a trained one; or of gemma3n_text, whose streams are stacked."""
    settings = _STACKED if name == "gemma3n_text" else ODD[name].settings
    return enliven(build_family(name, vocabulary, seed, settings))


def build_family(name: str, vocabulary: int, seed: int = 0, settings: dict[str, Any] | None = None) -> PreTrainedModel:
    """A random float32 model of a family, in evaluation mode; without settings of one of TABLE."""
    settings = dict(TABLE[name].settings if settings is None else settings)
    of_text = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    if "text_config" in settings:
        settings["text_config"] = of_text | settings["text_config"]
    config = CONFIG_MAPPING[name](**(settings if "text_config" in settings else of_text | settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    return model.eval()


def enliven(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Give a freshly made model weights as strong as a trained one's and biases other than zero.

    As initialised, blocks hardly change what passes through them, and many a mistake would stay below tolerance.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(8.0)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
