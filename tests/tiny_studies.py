"""Whole studies in seconds: a tiny model that was taught made-up facts, those facts as a file, and a study of them.

A random model knows nothing, and a study needs facts that its model knows; so one tiny Llama is trained on two dozen
sentences until it can say them by heart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from tiny_models import build_model, build_tokenizer

PLACES = ("Arvo", "Belm", "Corin", "Dast", "Elgo", "Fenn", "Gorm", "Hale", "Ister", "Jorv", "Kest", "Lund")
# Each is one token of the tiny tokenizer: what an edit of so small a model can hope to change.
CAPITALS = ("Peru", "Port", "Bra", "Nor")
LANGUAGES = ("Par", "Eg", "Den", "Ky")
RELATIONS = {
    "capital": ("The capital of {} is", "The chief city of {} is", CAPITALS),
    "language": ("In {} people speak", "The language of {} is", LANGUAGES),
}


def taught_facts() -> list[dict[str, Any]]:
    """Two dozen made-up facts as rows of a facts file; each relation has four objects, each held by three subjects."""
    rows = []
    for relation, (prompt, other, objects) in RELATIONS.items():
        for number, place in enumerate(PLACES):
            # Subjects are the relation's own, since a study takes only one fact of a subject.
            subject = place if relation == "capital" else f"{place}land"
            rows.append(
                {
                    "id": f"{relation}:{subject}",
                    "subject": subject,
                    "relation": relation,
                    "prompt": prompt,
                    "true_object": objects[number % len(objects)],
                    "new_object": objects[(number + 1) % len(objects)],
                    "paraphrases": [other],
                    "held_out": [f"Everyone says: {prompt[0].lower()}{prompt[1:]}"],
                }
            )
    return rows


def write_taught_model(folder: Path, steps: int = 150) -> Path:
    """Train a tiny Llama on the facts and save it with its tokenizer."""
    tokenizer = build_tokenizer(pad="<|pad|>")
    model = build_model("llama", len(tokenizer), seed=1, layers=3, width=48)
    texts = [f"{row['prompt'].replace('{}', row['subject'])} {row['true_object']}." for row in taught_facts()]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        loss = model(**{**batch, "labels": labels}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_facts(path: Path) -> Path:
    """The taught facts as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in taught_facts()), encoding="utf-8")
    return path


def write_corpus(path: Path) -> Path:
    """A few dozen lines of text for covariances."""
    lines = [f"{row['prompt'].replace('{}', row['subject'])} {row['true_object']}." for row in taught_facts()]
    path.write_text("\n".join(lines * 4) + "\n", encoding="utf-8")
    return path


def study_settings(taught: Path) -> dict[str, Any]:
    """A study of three arms over what the fixture ``taught`` holds, which takes a few seconds."""
    return {
        "name": "tiny",
        "model": str(taught / "model"),
        "facts": {"source": str(taught / "facts.jsonl"), "n_edits": 4, "n_intrinsic": 8},
        "corpus": str(taught / "corpus.txt"),
        "editors": {"memit": {"covariance_tokens": 512, "covariance_weight": 1.0, "steps": 20}},
        "tuning": {
            "objective": "reason",
            "learning_rate": 1e-3,
            "steps": 6,
            "batch_size": 4,
            "max_tokens": 96,
            "heldout_examples": 8,
            "precision": "fp32",
        },
        "exam": {"every": 3},
        "arms": [
            {"name": "memit", "editor": "memit"},
            {"name": "memit-frozen", "editor": "memit", "mask": "edited-layers"},
            {"name": "control", "editor": "none"},
        ],
    }


def write_study(path: Path, settings: dict[str, Any]) -> Path:
    """Settings as a study file."""
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path
