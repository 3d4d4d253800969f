#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0): Bamba, read on a cache without position_ids, counts every call from position 0.
#
# Seen: logits of tokens that are read one by one behind a cached prefix are 0.1 to 1 off those of one whole pass, and
# greedy text that is written in such a loop differs from what generate writes (which passes position_ids). With
# position_ids both agree to 1e-5. Llama, read in the same way, needs none: it counts from the length of its cache.
# Guess: a model that is given a cache continues behind it.
# Hurts: who scores answers or decodes with model(input_ids, past_key_values=cache): evaluation harnesses, speculative
# decoding, editors that keep a prefix. Nothing warns. Way out: always pass position_ids with a cache.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, BambaConfig, LlamaConfig

print("transformers", transformers.__version__, "torch", torch.__version__)
SHAPE = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
BAMBA = BambaConfig(**SHAPE, attn_layer_indices=[1], mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8)


def furthest(config, positions: bool) -> float:
    """Largest difference between logits of a whole pass and those of tokens read one by one behind six others."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.arange(7, 21)[None]
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        cache, off = model(tokens[:, :6], use_cache=True).past_key_values, 0.0
        for place in range(6, tokens.shape[1]):
            given = {"position_ids": torch.tensor([[place]])} if positions else {}
            read = model(tokens[:, place : place + 1], past_key_values=cache, use_cache=True, **given)
            off = max(off, float((read.logits[0, -1] - whole[0, place]).abs().max()))
    return off


found = {}
for name, config in (("Bamba", BAMBA), ("Llama", LlamaConfig(**SHAPE))):
    for positions in (False, True):
        found[name, positions] = off = furthest(config, positions)
        print(f"{name}, {'with' if positions else 'without'} position_ids: off by {off:.1e}")
assert found.pop(("Bamba", False)) > 1e-2, "changed: Bamba counts on from its cache"
assert max(found.values()) < 1e-4, "changed"
PYTHON
