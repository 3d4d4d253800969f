#!/usr/bin/env bash
# transformers 5.23.0, peft 0.21.2 (torch 2.13.0): what AutoModelForCausalLM.from_pretrained makes of a folder in silence.
#
# Seen: where adapter_config.json stands beside a whole model (trl and peft save it there), the model comes back with the
# adapter in it, as a LlamaForCausalLM and no PeftModel; save_pretrained then writes the adapter alone, without
# config.json or weights. And where config.json names code of its own and trust_remote_code is not given, the call prints a
# question and reads the answer from standard input, also with local_files_only=True and HF_HUB_OFFLINE=1.
# Guess: from_pretrained(folder).save_pretrained(copy) gives a copy; what is not trusted raises.
# Hurts: whoever edits, prunes or merges a checkpoint: the written folder lacks the model. Services that hang at a prompt.
# Way out: look for model.peft_config after loading; always give trust_remote_code.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import builtins
import json
from pathlib import Path

import peft
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

print("transformers", transformers.__version__, "peft", peft.__version__)
SHAPE = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def made() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


made().save_pretrained("both")
lora = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
peft.get_peft_model(made(), lora).save_pretrained("both")
model = AutoModelForCausalLM.from_pretrained("both")
model.save_pretrained("copy")
written = sorted(path.name for path in Path("copy").iterdir())
print("adapter beside the model:", type(model).__name__, list(model.peft_config), "->", written)
assert type(model) is LlamaForCausalLM and list(model.peft_config) == ["default"], "changed"
assert not any(name in written for name in ("config.json", "model.safetensors")), "changed"

made().save_pretrained("own")
config = json.loads(Path("own/config.json").read_text())
own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}}
Path("own/config.json").write_text(json.dumps(config | own))
Path("own/own.py").write_text("raise SystemExit('it has been run')\n")
asked = []
builtins.input = lambda prompt="": asked.append(prompt) or "n"
try:
    AutoModelForCausalLM.from_pretrained("own", local_files_only=True)
except ValueError as error:
    print("asked on standard input:", asked[0].splitlines()[-1], "| then", str(error).splitlines()[0][:60])
assert asked, "changed"
PYTHON
