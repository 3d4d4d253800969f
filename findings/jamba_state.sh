#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0): Jamba and Zamba forget their state when several tokens are read on a cache.
#
# Seen: behind a cached prefix, one token at a time gives the logits of one whole pass to 1e-5; the same tokens in one
# call give others (0.3 and more), as if nothing had been read before them: their Mamba layers use the cached state for
# single tokens only. Bamba (given position_ids), Granite 4, Qwen3-Next and Llama continue from it either way.
# Guess: a call with a cache continues the text, however many tokens it brings.
# Hurts: who scores an answer of several tokens behind a shared prefix, checks a draft (speculative or assisted decoding
# by hand), reads a long prompt in chunks, or adds a turn to a conversation whose cache was kept. Nothing warns.
# Way out: token by token, or the whole text again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, BambaConfig, GraniteMoeHybridConfig, JambaConfig, LlamaConfig, ZambaConfig

print("transformers", transformers.__version__, "torch", torch.__version__)
SHAPE = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
MAMBA_2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
ZAMBA = {"num_key_value_heads": 4, "attention_hidden_size": 64, "layers_block_type": ["linear_attention", "hybrid"] * 2}
CONFIGS = {
    "Jamba": JambaConfig(**SHAPE, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_dt_rank=4),
    "Zamba": ZambaConfig(**{**SHAPE, **ZAMBA}, n_mamba_heads=2, mamba_dt_rank=4),
    "Bamba": BambaConfig(**SHAPE, attn_layer_indices=[1], **MAMBA_2),
    "Granite 4": GraniteMoeHybridConfig(**SHAPE, layer_types=["linear_attention", "full_attention"] * 2, **MAMBA_2),
    "Llama": LlamaConfig(**SHAPE),
}


def furthest(config, step: int) -> float:
    """Largest difference between logits of a whole pass and those of tokens read so many at a time behind six others."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.arange(7, 21)[None]
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        cache, off = model(tokens[:, :6], use_cache=True).past_key_values, 0.0
        for start in range(6, tokens.shape[1], step):
            places = torch.arange(start, start + step)[None]
            read = model(tokens[:, places[0]], past_key_values=cache, position_ids=places, use_cache=True).logits
            off = max(off, float((read - whole[:, places[0]]).abs().max()))
    return off


for name, config in CONFIGS.items():
    single, several = furthest(config, 1), furthest(config, 8)
    print(f"{name}: off by {single:.1e} token by token, by {several:.1e} in one call")
    assert single < 1e-4, "changed"
    if name in ("Jamba", "Zamba"):
        assert several > 1e-2, f"changed: {name} continues from its state"
    else:
        assert several < 1e-4, "changed"
PYTHON
