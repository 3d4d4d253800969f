#!/usr/bin/env bash
# trl 1.16.0 (transformers 5.23.0, torch 2.13.0): a GRPO run that is resumed is another run, by where the checkpoint lies.
#
# Seen: eight steps at one go, against the same run begun again from a checkpoint, largest difference of any weight:
#   SFT, DPO, and GRPO that uses each generation once, from step 3      0 (to the bit)
#   GRPO with num_iterations=2, from step 4                             0
#   GRPO with num_iterations=2, from step 3                             0.026, a step or two of training
# Checkpoints hold no generations, and the count of steps that says when to generate starts at 0 again. So the batch of
# step 3 is generated once more by the newer policy, is then trained on in step 4 in place of step 4's own prompts, and
# every later generation comes one step late. The same with steps_per_generation above the accumulation.
# Guess: resuming gives the run that was interrupted, as it does for SFT and DPO with the same Trainer underneath.
# Hurts: long GRPO runs on machines that are taken away, and whoever compares seeds of which some were resumed: nothing
# is said. Way out: save_steps a multiple of num_iterations (and of steps_per_generation over the accumulation).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet transformers==5.23.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - > "$folder/said" 2> "$folder/errors" <<'PYTHON' || { cat "$folder/said" "$folder/errors"; exit 1; }
import random

import tokenizers
import torch
import transformers
import trl
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

print("#", "trl", trl.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
WORDS = [f"w{number}" for number in range(60)]
plain = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="w2"))
plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
draw = random.Random(0)


def text(length: int) -> str:
    return " ".join(draw.choice(WORDS[3:]) for _ in range(length))


ROWS = {
    "SFT": [{"text": text(draw.randint(4, 14))} for _ in range(32)],
    "DPO": [{"prompt": text(4), "chosen": " " + text(5), "rejected": " " + text(5)} for _ in range(32)],
    "GRPO": [{"prompt": text(4)} for _ in range(32)],
}
torch.manual_seed(0)
SHAPE = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 1, "eos_token_id": 0}
LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained("model")
PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="w0", pad_token="w1", unk_token="w2").save_pretrained("model")


def variety(completions, **_):
    return [float(len(set(completion.split())) % 3) for completion in completions]


def weights(method: str, begin: str | None, checkpoint: int, **more: object) -> dict[str, torch.Tensor]:
    settings = {"max_steps": 8, "save_steps": checkpoint, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    settings |= {"seed": 5, "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "logging_steps": 8}
    extra = {"num_generations": 4, "max_completion_length": 6} if method == "GRPO" else {}
    config = getattr(trl, f"{method}Config")(f"out-{method}-{checkpoint}", **settings, **extra, **more)
    rewards = {"reward_funcs": variety} if method == "GRPO" else {}
    data = Dataset.from_list(ROWS[method])
    trainer = getattr(trl, f"{method}Trainer")(model="model", args=config, train_dataset=data, **rewards)
    trainer.train(resume_from_checkpoint=begin)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def apart(method: str, checkpoint: int, **more: object) -> float:
    whole = weights(method, None, checkpoint, **more)
    resumed = weights(method, f"out-{method}-{checkpoint}/checkpoint-{checkpoint}", checkpoint, **more)
    worst = max(float((resumed[name] - value).abs().max()) for name, value in whole.items())
    print(f"# {method} {more or ''} from step {checkpoint}: {worst:.4f}")
    return worst


assert apart("SFT", 3) == apart("DPO", 3) == apart("GRPO", 3) == 0
assert apart("GRPO", 4, num_iterations=2) == 0
assert apart("GRPO", 3, num_iterations=2) > 0.005
assert apart("GRPO", 3, steps_per_generation=2) > 0.005
PYTHON
grep "^#" "$folder/said"
echo "as described"
