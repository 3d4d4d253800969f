"""What the tests of updates share: edits of tiny models, and how bits are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from worked_facts import CAPITALS, CORPUS

from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.editor import EDITORS

Make = Callable[..., PreTrainedModel]
MEMIT: dict[str, Any] = {
    "layers": (1, 2),
    "covariance_weight": 0.05,
    "steps": 15,
    "contexts": 0,
    "covariance_tokens": 600,
    "clamp": 4.0,
    "kl_weight": 0.0,
    "weight_decay": 1e-4,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "memit": MEMIT,
    "ft-m": {"layer": 1, "steps": 15, "learning_rate": 0.01},
    "alphaedit": {key: value for key, value in MEMIT.items() if key != "covariance_weight"}
    | {"null_threshold": 2.0, "size_weight": 0.01},
    "lora": {"layers": (1, 2), "steps": 25, "learning_rate": 0.03, "target": "all-linear"},
}


def edit(name: str, model: PreTrainedModel, tokenizer: Any, facts: Any = CAPITALS, **more: Any) -> WeightUpdate:
    update = EDITORS.get(name)(**SETTINGS[name]).edit(model, tokenizer, facts, corpus=CORPUS, **more)
    assert isinstance(update, WeightUpdate)
    return update


def bits(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone().view(torch.int32) for name, weight in model.named_parameters()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def train(model: PreTrainedModel, names: tuple[str, ...] | None = None, size: float = 1e-4) -> None:
    """Every weight (or those named) moves a little, as training moves them."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if names is None or name in names:
                weight.add_(size * torch.randn(weight.shape, generator=generator))
