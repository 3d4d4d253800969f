#!/usr/bin/env bash
# torch 2.13.0: vector_to_parameters copies nothing. The vector becomes the model's storage, and is trained with it.
#
# "Copy slices of a vector into an iterable of parameters", its documentation begins; it puts views of the vector in
# the place of the weights.
# Seen: a small language model with a tied head; its weights are kept by parameters_to_vector, which does copy, and put
# back by vector_to_parameters before each of four equal runs of ten steps on the same tokens:
#   loss at the start of each run     4.48, 0.86, 0.08, 0.06; with vector.clone() 4.48 four times
#   two models set from one vector    the second, never trained, has the first one's loss, to the bit
#   a bfloat16 model set from a float32 vector        is a float32 model
#   torch.save of its norm alone (128 numbers)        writes all weights, 52 kB in place of 2
# Guess: it copies into the weights, as load_state_dict does and as it says.
# Hurts: whoever takes a model back to where it was by a vector, between edits, seeds, tasks, steps of a line search or
# of task arithmetic: from the second run on each begins where the last one ended, the kept weights are lost, and a
# difference to them is zero. It looks as if training worked better each time. Way out: hand over vector.clone().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0
cd "$folder"
"$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import os

import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

print("torch", torch.__version__)


class Small(torch.nn.Module):
    """Predicts the next of 64 tokens from the last two."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = torch.nn.Embedding(64, 64), torch.nn.LayerNorm(64)
        self.past, self.now = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
        self.head = torch.nn.Linear(64, 64, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        read = self.embed(tokens)
        state = torch.tanh(self.past(read[:, :-2]) + self.now(read[:, 1:-1]))
        return torch.nn.functional.cross_entropy(self.head(self.norm(state)).flatten(0, 1), tokens[:, 2:].flatten())


def made(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    model = Small()
    torch.nn.init.normal_(model.embed.weight, std=0.1)
    return model


TOKENS = torch.randint(64, (8, 32), generator=torch.Generator().manual_seed(0))


def train(model: Small) -> None:
    step = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(10):
        step.zero_grad()
        model(TOKENS).backward()
        step.step()


def runs(copied: bool) -> tuple[list[float], float]:
    """The loss before each run, and how far the kept vector has moved after all."""
    model = made()
    kept = parameters_to_vector(model.parameters()).detach()
    before, begins = kept.clone(), []
    for _ in range(4):
        vector_to_parameters(kept.clone() if copied else kept, model.parameters())
        begins.append(round(float(model(TOKENS).detach()), 2))
        train(model)
    return begins, float((kept - before).abs().max())


(as_it_is, moved), (cloned, still) = runs(False), runs(True)
print(f"starts {as_it_is}, the kept vector moved by {moved:.2f}; with clone() {cloned}, moved by {still}")
assert as_it_is[0] == cloned[0] and as_it_is[-1] < as_it_is[0] - 1 and moved > 0.01, "changed"
assert len(set(cloned)) == 1 and still == 0, "changed"

one, two = made(), made(seed=1)
vector = parameters_to_vector(one.parameters()).detach()
for model in (one, two):
    vector_to_parameters(vector, model.parameters())
begin = float(two(TOKENS).detach())
train(one)
ends = float(one(TOKENS).detach()), float(two(TOKENS).detach())
print(f"two models of one vector: {begin:.2f} at first; after training one of them {ends[0]:.4f} and {ends[1]:.4f}")
assert ends[0] == ends[1] < begin - 0.5, "changed"

half = made().to(torch.bfloat16)
vector_to_parameters(vector, half.parameters())
print("a bfloat16 model is now", half.norm.weight.dtype)
assert half.norm.weight.dtype == torch.float32, "changed"
sizes = []
for name, model in (("own", made()), ("views", half)):
    torch.save(model.norm.state_dict(), name)
    sizes.append(os.path.getsize(name))
print("bytes of a saved norm:", *sizes, "and of all weights:", vector.numel() * 4)
assert sizes[0] < 4000 and sizes[1] > vector.numel() * 4, "changed"
PYTHON
