"""What tests of deltas share: facts to edit, and models other than the one that they are made for."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny_models import build_model, build_tokenizer
from tiny_studies import taught_facts

NEW = 3


def facts_file(path: Path, start: int, count: int = NEW) -> Path:
    """Taught facts, each with the next different object of its relation as the new one."""
    rows = taught_facts()
    chosen = []
    for row in rows[start : start + count]:
        others = [one["true_object"] for one in rows if one["relation"] == row["relation"]]
        new = next(other for other in others if other != row["true_object"])
        chosen.append({**row, "new_object": new})
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    return path


def trained(folder: Path, out: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1e-4 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out


def saved(folder: Path, family: str, width: int) -> Path:
    tokenizer = build_tokenizer()
    build_model(family, len(tokenizer), layers=3, width=width).save_pretrained(folder / family)
    tokenizer.save_pretrained(folder / family)
    return folder / family
