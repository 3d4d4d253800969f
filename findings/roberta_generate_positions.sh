#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0): RoBERTa's `generate` counts positions from 0, its own forward pass from 2.
#
# Seen: the log-probabilities of the first token that `generate` writes after one unpadded text are those of a pass with
# position_ids 0, 1, 2, ..., and several nats off those of model(input_ids), with a cache and without one. The model
# itself begins behind the padding token's id (pad_token_id + 1), as it was trained. GPT-2 agrees with itself. So do not
# CamemBERT, XLM-RoBERTa (XL), X-MOD, data2vec-text and RoBERTa-PreLayerNorm, which have the same positions.
# Guess: `generate` writes what the forward pass finds most probable.
# Hurts: whoever uses one of these as a decoder: it is trained and scored at one set of positions and generates at
# another.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, RobertaConfig, RobertaForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
TOKENS = {"vocab_size": 100, "initializer_range": 0.3, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 40}

for name, kind, config in (
    ("RoBERTa", RobertaForCausalLM, RobertaConfig(**TOKENS, **SHAPE, intermediate_size=64, is_decoder=True)),
    ("GPT-2", GPT2LMHeadModel, GPT2Config(**TOKENS, **SHAPE)),
):
    torch.manual_seed(0)
    model = kind(config).eval()
    text = torch.tensor([[0, 11, 12, 13, 14]])
    with torch.no_grad():
        own = model(text, use_cache=False).logits[0, -1].log_softmax(-1)
        from_0 = model(text, position_ids=torch.arange(5)[None], use_cache=False).logits[0, -1].log_softmax(-1)
    for cache in (True, False):
        written = model.generate(
            text, max_new_tokens=1, do_sample=False, use_cache=cache, output_logits=True, return_dict_in_generate=True
        )
        found = written.logits[0][0].log_softmax(-1)
        off, off_0 = float((found - own).abs().max()), float((found - from_0).abs().max())
        print(f"{name}, use_cache={cache}: {off:.1e} nats off its own pass, {off_0:.1e} off one from position 0")
        assert off_0 < 1e-3, "changed"
        assert (off > 0.1) == (name == "RoBERTa"), "changed"
PYTHON
