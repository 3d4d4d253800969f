#!/usr/bin/env bash
# lm_eval 0.4.13 (transformers 5.23.0, torch 2.13.0): use_cache answers for a model with another model's scores.
#
# Seen: simple_evaluate(..., use_cache=path) keeps answers under a hash of the request alone (its kind, context and
# continuation). Neither the model's name nor its weights are in it, nor in the name of the file (path_rank0.db).
# Three random models score 0.275, 0.15 and 0.225 on 40 questions, and 0.275 all three with one path. A model whose head
# is then set to zero in place scores 0.275 still (0.25 without the cache). No warning is logged. Their issue 2715 has
# it for models of two names; no name tells an edited model from the one it was.
# Guess: another model, or the same object after an edit, is asked anew.
# Hurts: whoever scores before and after an edit, a merge or a training, or sweeps over checkpoints, with one cache:
# nothing was forgotten, whatever was done. Way out: a path for each state of the weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet lm_eval==0.4.13 torch==2.13.0 transformers==5.23.0 peft==0.21.2 \
    accelerate==1.15.0 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import json
import logging
import random
from importlib.metadata import version
from pathlib import Path

import lm_eval
import tokenizers
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

print("lm_eval", version("lm_eval"), "transformers", transformers.__version__, "torch", torch.__version__)
warned = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warned.append(record.getMessage())
logging.getLogger("lm_eval").addHandler(handler)
draw = random.Random(0)


def word(first: int) -> str:
    return f"w{draw.randint(first, 39)}"


ROWS = [
    {"question": f"{word(5)} {word(5)}", "choices": [word(5) for _ in range(4)], "answer": draw.randint(0, 3)}
    for _ in range(40)
]
Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
Path("tasks").mkdir()
Path("tasks/words.yaml").write_text(
    f"""task: words
dataset_path: json
dataset_kwargs:
  data_files: {Path("rows.jsonl").resolve()}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""
)
plain = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{n}": n for n in range(40)}, unk_token="w2"))
plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="w0", pad_token="w1", unk_token="w2")
TASKS = TaskManager(include_path="tasks", include_defaults=False)
SHAPE = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def made(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=0.5, bos_token_id=0, eos_token_id=0)).eval()


def score(model: LlamaForCausalLM, **options) -> float:
    asked = HFLM(pretrained=model, tokenizer=TOKENIZER, batch_size=1, max_length=32)
    found = lm_eval.simple_evaluate(
        model=asked, tasks=["words"], task_manager=TASKS, bootstrap_iters=0, verbosity="WARNING", **options
    )
    return found["results"]["words"]["acc,none"]


apart = [score(made(seed)) for seed in range(3)]
warned.clear()
together = [score(made(seed), use_cache="kept/answers") for seed in range(3)]
said = [line for line in warned if "cache" in line.lower()]
print("three models:", apart, "with one cache:", together, "warned of the cache:", said)
print("file:", sorted(path.name for path in Path("kept").iterdir()))
model = made(0)
before = score(model, use_cache="kept/other")
model.lm_head.weight.data.zero_()
after, truly = score(model, use_cache="kept/other"), score(model)
print("before its head is set to zero:", before, "after:", after, "without the cache:", truly)
assert len(set(apart)) > 1 and apart[0] not in apart[1:], "other weights than these"
assert together == [apart[0]] * 3 and not said, "changed"
assert before == after != truly, "changed"
PYTHON
