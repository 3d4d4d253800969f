#!/usr/bin/env bash
# transformers 5.23.0 (accelerate 1.15.0, torch 2.13.0): auto_find_batch_size begins anew with weights that were trained.
#
# Where memory runs out, Trainer(auto_find_batch_size=True) runs its whole loop again with a batch of 0.9 times the size.
# Steps, schedule, optimizer and log start at nothing; the weights stay as the steps before left them.
# Seen: a tiny random Llama, 32 rows in order, the last eight twice as long, so that a batch of 8 does not fit (an
# allocation that fails as a real one does) after three steps; loss of the first step, steps, and what came of it:
#   per_device_train_batch_size=7 from the start                     4.89    5 steps
#   8, auto_find_batch_size=True, which comes to 7 by itself         3.16    5 steps by its own count, 8 on the weights
# Its log, state and train_loss hold the second try alone, no file or warning says that there was a first, and the first
# 24 rows were trained on twice. The weights of the two runs are twice as far apart as training takes one of them.
# Guess: the tries that do not fit leave no trace: the run is that of the batch that fits.
# Hurts: runs on mixed lengths, where the long rows come late: a run that met its limit at step 900 has had 900 steps
# more than it says, and no other machine repeats it. Comparisons by equal steps or tokens are off for the one arm that
# was short of memory. Way out: find the batch first, and train it on a fresh model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet transformers==5.23.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - > "$folder/said" 2> "$folder/errors" <<'PYTHON' || { cat "$folder/said" "$folder/errors"; exit 1; }
import accelerate
import torch
import transformers
from torch.nn.utils import parameters_to_vector
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

print("#", "transformers", transformers.__version__, "accelerate", accelerate.__version__, "torch", torch.__version__)
torch.set_num_threads(1)
SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "pad_token_id": 0}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
DRAW = torch.Generator().manual_seed(0)
ROWS = [torch.randint(1, 64, (8 if row < 24 else 16,), generator=DRAW) for row in range(32)]
FITS = 7 * 16


def collate(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return {"input_ids": tokens, "attention_mask": (tokens > 0).long(), "labels": tokens.masked_fill(tokens == 0, -100)}


class InOrder(Trainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return parameters_to_vector(model.parameters()).detach().clone()


def run(batch: int, find: bool) -> tuple[torch.Tensor, list[float], list[float], int, int]:
    """The trained weights, the logged losses, how far weights had moved at each forward pass, and the counts of steps."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    begin, moved, steps = weights(model), [], []

    def short_of_memory(_: torch.nn.Module, __: tuple, given: dict) -> None:
        moved.append(float((weights(model) - begin).abs().max()))
        if given["input_ids"].numel() > FITS:
            torch.empty(2**55)  # fails, as does what is too large: "not enough memory"

    model.register_forward_pre_hook(short_of_memory, with_kwargs=True)
    settings = {"per_device_train_batch_size": batch, "auto_find_batch_size": find, "num_train_epochs": 1}
    settings |= {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "logging_steps": 1, "disable_tqdm": True}
    settings |= {"report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False}
    trainer = InOrder(model, TrainingArguments("out", **settings), train_dataset=ROWS, data_collator=collate)
    inner = trainer.training_step
    trainer.training_step = lambda *given: steps.append(1) or inner(*given)
    trainer.train()
    losses = [round(line["loss"], 2) for line in trainer.state.log_history if "loss" in line]
    return weights(model), losses, moved, trainer.state.global_step, len(steps)


plain, losses, moved, counted, taken = run(7, False)
found, losses_found, moved_found, counted_found, taken_found = run(8, True)
apart, far = float((plain - found).abs().max()), moved[-1]
print(f"# a batch of 7: losses {losses}, {counted} steps of {taken} begun; weights moved by {far:.3f} before the last")
print(f"# found from 8: losses {losses_found}, {counted_found} steps of {taken_found} begun")
print(f"# moved when the second try began {moved_found[4]:.3f}; weights of the two runs are {apart:.3f} apart")
assert counted == taken == counted_found == 5 and taken_found == 9, "changed"
assert moved[0] == moved_found[0] == 0 and moved_found[4] > 0.01 and apart > 0.01, "changed"
assert losses_found[0] < losses[0] - 0.3 and len(losses_found) == 5, "changed"
PYTHON
grep '^#' "$folder/said"
! grep -i -E "memory|batch" "$folder/errors"
