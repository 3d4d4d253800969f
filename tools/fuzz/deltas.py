"""Deltas and adapters with a manifest, tensors or bytes that nobody wrote, under hashes that fit again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fuzz.material import Desk
from fuzz.mutations import Mutator
from indelible.edits.deltas.delta import Edit

KINDS = ("ft-m", "memit", "grace", "ike")


def delta_file(desk: Desk, random: Random) -> tuple[Callable[[], Any], str]:
    """A delta, read, and used on the model that it was made for where it is let through."""
    mutator = Mutator(random)
    kind = random.choice(KINDS)
    raw = (desk.kept / f"{kind}.safetensors").read_bytes()
    how = random.randrange(5)
    if how == 0:
        said, raw = "bytes", mutator.broken(raw)
    else:
        manifest, tensors = _opened(raw)
        said = ""
        if how in (1, 2):
            said = mutator.as_json(mutator.changed(manifest))
        if how in (2, 3, 4):
            tensors, changed = _changed(tensors, random)
            said = said or json.dumps(manifest)
            raw = _sealed(said, tensors)
            said = f"{changed} {said}"
        else:
            raw = _sealed(said, tensors)
    path = desk.file("delta.safetensors", raw)

    def case() -> None:
        edit = Edit.load(path)
        model = copy.deepcopy(_model(desk.kept))
        repr(edit), edit.context
        with edit.applied(model):
            pass
        edit.save(desk.inside / "again.safetensors")
        if hasattr(edit, "presence"):
            edit.presence(model)
            edit.revert(model, approximately=True)

    return case, f"{kind} {how}\n{said[:3000]}"


@cache
def _model(kept: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(kept / "model")


def _opened(raw: bytes) -> tuple[Any, dict[str, Tensor]]:
    size = int.from_bytes(raw[:8], "little")
    return json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["manifest"]), load(raw)


def _changed(tensors: dict[str, Tensor], random: Random) -> tuple[dict[str, Tensor], str]:
    """Some tensors of other names, shapes, types or values."""
    found = dict(tensors)
    for _ in range(random.randint(1, 2)):
        name = random.choice([*found, "x:left", "nothing"])
        one = found.get(name, torch.zeros(2, 2))
        made: dict[str, Callable[[], Tensor]] = {
            "one": lambda one=one: one.flatten()[:1].clone(),
            "none": lambda one=one: one.flatten()[:0].clone(),
            "scalar": lambda: torch.tensor(1.0),
            "turned": lambda one=one: one.T.contiguous() if one.dim() == 2 else one[None],
            "longer": lambda one=one: torch.cat([one, one]) if one.dim() else one[None],
            "long": lambda: torch.zeros(100_000, 1),
            "wide": lambda: torch.zeros(1, 100_000),
            "nan": lambda one=one: torch.full_like(one.float(), float("nan")),
            "huge": lambda one=one: torch.full_like(one.float(), 3e38),
            "whole": lambda one=one: one.to(torch.int64),
            "half": lambda one=one: one.to(torch.float16),
            "complex": lambda one=one: one.to(torch.complex64),
            "negative": lambda: torch.tensor([-1]),
            "far": lambda: torch.tensor([2**62]),
            "bool": lambda one=one: one.to(torch.bool),
        }
        what = random.choice([*made, "gone", "renamed"])
        if what == "gone":
            found.pop(name, None)
        elif what == "renamed":
            found[random.choice((f"{name}x", "a:b:left", ":full", f"{name.rpartition(':')[0]}:full"))] = one.clone()
        else:
            found[name] = made[what]().contiguous()
        said = f"{name}: {what}"
    return found, said


class _Written:
    """A manifest that is what it says, as ``packed`` takes one."""

    def __init__(self, text: str) -> None:
        self.text = text

    def model_dump_json(self) -> str:
        return self.text


def _sealed(manifest: str, tensors: dict[str, Tensor]) -> bytes:
    from indelible.edits.deltas.manifest import packed

    text: Any = _Written(manifest.encode("utf-8", "replace").decode())
    return packed(text, partial(save, tensors))


def adapter_folder(desk: Desk, random: Random) -> tuple[Callable[[], Any], str]:
    """An adapter's settings, as whoever loads it meets them first."""
    from indelible.models.merging import base_of, is_adapter

    mutator = Mutator(random)
    settings = {"base_model_name_or_path": "m", "peft_type": "LORA", "r": 2, "target_modules": ["down_proj"]}
    text = mutator.as_json(mutator.changed(settings))
    folder = desk.file("adapter/adapter_config.json", text).parent
    desk.file("adapter/adapter_model.safetensors", b"")
    return lambda: is_adapter(folder) and base_of(folder), text
