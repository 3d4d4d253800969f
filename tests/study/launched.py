"""What each process of a test does that ``accelerate launch`` has started: tune an edited model whose head is tied to
its embeddings, run a study, and say in ``FOLDER/RANK.pt`` what came of it. Arguments: FOLDER and the study's settings
as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from indelible.edits.editor import EDITORS
from indelible.errors import TrainingDivergedError
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.study.design.settings import StudyConfig
from indelible.study.run.run import run_study
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.train import fine_tune
from tiny_models import build_model, build_tokenizer

FACT = Fact("a", "Peru", "capital", "The capital of {} is", "Nor", "Port")
# The last batch of each epoch is a single row, which two processes cannot divide.
SETTINGS: dict[str, Any] = {
    "objective": "text", "learning_rate": 1e-2, "steps": 4, "batch_size": 4, "train_examples": 9, "max_tokens": 64,
    "heldout_examples": 4, "warmup_steps": 0, "precision": "fp32", "stop_at": {"loss": 0.1}, "evaluate_every": 2,
}  # fmt: skip


class Look(TrainerCallback):
    """Notes of what kind a weight is while the model is trained."""

    kind = ""

    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        self.kind = type(next(model.parameters())).__name__


def tuned() -> dict[str, Any]:
    tokenizer = build_tokenizer()
    model = build_model("qwen3", len(tokenizer), seed=1, layers=3, width=32)
    with pytest.raises(TrainingDivergedError):  # after which the model is trained as if nothing had been
        fine_tune(model, tokenizer, SETTINGS | {"learning_rate": 1e38}, seed=3)
    layout = find_layout(model)
    edit = EDITORS.get("ft-m")(layer=1, steps=5, learning_rate=0.01).edit(model, tokenizer, [FACT])
    edit.apply(model)
    edited = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    frozen = frozen_parameters("edited-layers", model, layout, edit.parameters)
    look = Look()
    result = fine_tune(model, tokenizer, SETTINGS, frozen=frozen, seed=3, callbacks=[look])
    return {
        "kind": look.kind,
        "class": type(model).__name__,
        "weights": {name: weight.detach() for name, weight in model.named_parameters()},
        "moved": {name for name, weight in model.named_parameters() if not torch.equal(weight, edited[name])},
        "frozen": set(frozen),
        "tied": model.get_input_embeddings().weight is model.get_output_embeddings().weight,
        "delta": edit.presence(model).state,
        "figures": [*result.before.values(), *result.looks.values(), *result.after.values()],
        "log": [(entry["loss"], entry["grad_norm"]) for entry in result.log],
        "tokens": result.tokens,
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = tuned()
    outcome = run_study(StudyConfig.model_validate(json.loads(sys.argv[2])), folder / "run")
    torch.save({**found, "outcome": (outcome.summary, outcome.failures)}, folder / f"{os.environ['RANK']}.pt")
