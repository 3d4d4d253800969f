"""What the tests of edits that touch no weights share: the edits, and the ways in which a model is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from worked_facts import CAPITALS

from indelible.edits.beside.codebook import Codebook
from indelible.edits.editor import EDITORS

Make = Callable[..., PreTrainedModel]

FACTS = CAPITALS[:3]


def edit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, facts: Any = FACTS, **more: Any) -> Codebook:
    options = {key: more.pop(key) for key in ("layer", "radius", "steps") if key in more}
    made = EDITORS.get("grace")(**{"layer": 2, "steps": 15, **options}).edit(model, tokenizer, facts, **more)
    assert isinstance(made, Codebook)
    return made


def logits(model: PreTrainedModel, tokens: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.as_tensor(tokens), **options).logits
    return found


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def reads(model: PreTrainedModel, adapter: Codebook, tokens: list[int]) -> Tensor:
    """What the model should answer to one text: no padding and no cache."""
    with adapter.installed(model):
        return logits(model, [tokens], use_cache=False)[0]


def in_rows(texts: list[list[int]], side: str, pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and mask of several texts."""
    longest = max(map(len, texts))
    pads = [[pad] * (longest - len(text)) for text in texts]
    marks = [[0] * len(padding) + [1] * len(text) for text, padding in zip(texts, pads, strict=True)]
    if side == "left":
        rows = [padding + text for text, padding in zip(texts, pads, strict=True)]
    else:
        rows = [text + padding for text, padding in zip(texts, pads, strict=True)]
        marks = [mark[::-1] for mark in marks]
    return torch.tensor(rows), torch.tensor(marks)


def positions(model: PreTrainedModel, mask: Tensor) -> dict[str, Tensor]:
    """Positions that padding does not count for, for the families that take them."""
    taken = "position_ids" in inspect.signature(model.forward).parameters
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if taken else {}
