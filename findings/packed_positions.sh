#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0): position_ids decide who sees whom, unless a cache is made, which is the default.
#
# Seen, with a tiny random Llama, logits against those of each text alone:
#   two texts in one row, positions 0..3 0..3, use_cache=False      right: a restart of the positions parts the texts
#   the same call, use_cache left out (or True), eval() or train()  off by 6.9: the second text reads the first
#   the same with attention_mask of ones and use_cache=False        off by 6.9 as well
#   one text with positions 0, 2, 4, ... and use_cache=False        each token sees itself alone; with a mask of ones, or a
#                                                                   cache, the text is read
# Guess: position_ids are angles of the rotary embedding and hide nothing; or, by who knows of packing: they always
# part.
# Hurts: losses and scores of packed rows outside a trainer (Trainer and trl pass use_cache=False): texts leak into
# each other, and the same call gives two answers. And whoever stretches or skips positions (interpolation, dropped
# middles, skipped chunks): attention is gone in silence where no mask was given. Way out: packed rows with
# use_cache=False and no mask, stretched ones with a mask of ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
SHAPE = {
    **{"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0},
}
TEXTS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
ROW = TEXTS.reshape(1, 8)
ONES = torch.ones_like(ROW)
PACKED, STRETCHED = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]]), torch.arange(0, 16, 2)[None]


def off(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one.reshape(two.shape) - two).abs().max())


for kind, config in ((LlamaForCausalLM, LlamaConfig(**SHAPE)), (Qwen3ForCausalLM, Qwen3Config(**SHAPE))):
    torch.manual_seed(0)
    model = kind(config)
    found = {}
    with torch.no_grad():
        alone = model.eval()(TEXTS, use_cache=False).logits
        for way, options in {
            "use_cache=False": {"use_cache": False},
            "default": {},
            "use_cache=True": {"use_cache": True},
            "mask of ones": {"use_cache": False, "attention_mask": ONES},
        }.items():
            for training in (False, True):
                packed = model.train(training)(ROW, position_ids=PACKED, **options).logits
                found[way, training] = off(packed, alone)
        model.eval()
        single = model(ROW.reshape(8, 1), use_cache=False).logits
        bare = model(ROW, position_ids=STRETCHED, use_cache=False).logits
        masked = model(ROW, position_ids=STRETCHED, use_cache=False, attention_mask=ONES).logits
        cached = model(ROW, position_ids=STRETCHED).logits
    print(kind.__name__, "packed:", {f"{way}, {'train' if at else 'eval'}": round(far, 2) for (way, at), far in found.items()})
    print("  stretched: bare, from tokens alone", f"{off(bare, single):.1e}, from the masked pass {off(bare, masked):.2f};",
          f"default from the masked pass {off(cached, masked):.1e}")
    for (way, _), far in found.items():
        assert (far < 1e-4) == (way == "use_cache=False"), "changed"
        assert far < 1e-4 or far > 0.5, "changed"
    assert off(bare, single) < 1e-4 and off(bare, masked) > 0.5 and off(cached, masked) < 1e-4, "changed"
PYTHON
