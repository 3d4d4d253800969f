"""Which model an edit was made for, in words that a reader of its manifest knows: a name and an architecture.

The fingerprint alone decides whether an edit fits; this says what to look for when it does not. A folder is named by
its last component, so that a manifest tells nothing of the machine that it was written on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel

from indelible.errors import FingerprintError
from indelible.models.bundled import fetch as bundled

_SHOWN = 12
"""Digits of a fingerprint that tell models apart."""


def origin(model: PreTrainedModel) -> dict[str, str]:
    """``name`` (bundled, of the hub, or a folder's last component; empty if it has none) and ``architecture``."""
    return {"name": _known_as(str(model.name_or_path or "")), "architecture": type(model).__name__}


def refusal(
    made_for: Mapping[str, str] | None, wanted: str, leaves: str | None, model: PreTrainedModel, actual: str
) -> FingerprintError:
    """Why an edit does not fit a model.

    Args:
        made_for: what ``origin`` gave of the model that it was made for; None where its manifest does not say.
        wanted: that model's fingerprint.
        leaves: fingerprint of that model with the edit; None where its manifest does not say.
        model: the one at hand.
        actual: its fingerprint.
    """
    found = origin(model)
    if actual == leaves:
        return FingerprintError(
            f"This edit is in {_spoken(found)} already.", "There is nothing to apply; revert takes it out."
        )
    if made_for is not None and made_for["architecture"] != found["architecture"]:
        return FingerprintError(
            f"This edit was made for {_spoken(made_for)}, not for {_spoken(found)}.",
            "Give the model that it was made for, or make the edit again for this one.",
        )
    fix = "Give that checkpoint itself, with the edits that were in it then and no others, or make the edit again."
    if model.dtype != torch.float32:
        fix = f"This one is loaded in {model.dtype}: load it in float32, or make the edit again."
    what = "a model" if made_for is None else _spoken(made_for)
    return FingerprintError(
        f"This edit was made for {what} with fingerprint {wanted[:_SHOWN]}, not for {_spoken(found)} with fingerprint"
        f" {actual[:_SHOWN]}.",
        fix,
    )


def _spoken(one: Mapping[str, str]) -> str:
    return f"{one['name'] or 'a model'} ({one['architecture']})"


def _known_as(source: str) -> str:
    """The name that a model was asked for by, out of where transformers read it from."""
    for name in bundled.MODELS:
        if bundled.is_cached(name) and Path(source) == bundled.model_folder(name):
            return name
    on_disk = bool(source) and Path(source).is_dir()
    if on_disk or source.startswith(("/", ".", "~")) or source.count("/") > 1 or "\\" in source:
        last = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return Path(source).resolve().name if last in ("", ".", "..") else last
    return source
