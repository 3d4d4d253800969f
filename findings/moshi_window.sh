#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0): Moshi's text model has a sliding window with a cache, and none without.
#
# Seen: beyond config.sliding_window tokens (3000 by default) logits of a pass with use_cache=True, and of a text that is
# continued on its cache, differ from those of a pass with use_cache=False: the cache that the model makes for itself
# keeps no more than the window, and the mask of a pass knows of no window. Mistral agrees with itself.
# Guess: a cache saves time and changes nothing.
# Hurts: whoever scores long texts in one pass and generates with a cache (or trains without one): perplexity and
# generation are of two different models.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
import transformers
from transformers import MistralConfig, MistralForCausalLM, MoshiConfig
from transformers.models.moshi.modeling_moshi import MoshiForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
SHAPE = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 4, "head_dim": 8, "initializer_range": 0.2, "sliding_window": 8}


def furthest(model) -> tuple[float, float]:
    """Largest difference between logits of a whole pass without a cache and those on one, within and beyond a window."""
    tokens = torch.arange(7, 23)[None]
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        cache, off = None, []
        for place in range(tokens.shape[1]):
            read = model(tokens[:, place : place + 1], past_key_values=cache, use_cache=True)
            cache = read.past_key_values
            off.append(float((read.logits[0, -1] - whole[0, place]).abs().max()))
    return max(off[:8]), max(off[8:])


for name, kind, config in (
    ("Moshi", MoshiForCausalLM, MoshiConfig(**SHAPE, ffn_dim=64)),
    ("Mistral", MistralForCausalLM, MistralConfig(**SHAPE, intermediate_size=64)),
):
    torch.manual_seed(0)
    within, beyond = furthest(kind(config).eval())
    print(f"{name}: off by {within:.1e} within the window, by {beyond:.1e} beyond it")
    assert within < 1e-4, "changed"
    assert (beyond > 1e-2) == (name == "Moshi"), "changed"
PYTHON
