"""What tests of deltas share: facts to edit, and models other than the one that they are made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tiny_models import build_model, build_tokenizer
from tiny_studies import taught_facts

NEW = 3


def facts_file(path: Path, start: int, count: int = NEW) -> Path:
    """Some of the taught facts."""
    chosen = taught_facts()[start : start + count]
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    return path


def rewritten(folder: Path, out: Path, change: Callable[[PreTrainedModel], object]) -> Path:
    """A copy of a model after something was done to it."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    with torch.no_grad():
        change(model)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out


def trained(folder: Path, out: Path, by: float = 0.001, *begins: str) -> Path:
    """A copy each of whose parameters, or those whose names begin so, moved by that part of their spread."""

    def move(model: PreTrainedModel) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, weight in model.named_parameters():
            if name.startswith(begins or ("",)):
                weight.add_(by * weight.std() * torch.randn(weight.shape, generator=generator))

    return rewritten(folder, out, move)


def saved(folder: Path, family: str, width: int) -> Path:
    tokenizer = build_tokenizer()
    build_model(family, len(tokenizer), layers=3, width=width).save_pretrained(folder / family)
    tokenizer.save_pretrained(folder / family)
    return folder / family
