"""Which model an edit was made for, in words that a reader of its manifest knows: a name and an architecture.

The fingerprint alone decides whether an edit fits; this says what to look for when it does not. A folder is named by
its last component, so that a manifest tells nothing of the machine that it was written on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from indelible.edits.deltas.manifest import Manifest, Origin, WeightManifest
from indelible.errors import FingerprintError
from indelible.models.bundled import fetch as bundled

_SHOWN = 12
"""Digits of a fingerprint that tell models apart."""


def origin(model: PreTrainedModel) -> Origin:
    """What a model is known as."""
    return Origin(name=_known_as(str(model.name_or_path or "")), architecture=type(model).__name__)


def refusal(manifest: Manifest, model: PreTrainedModel, actual: str) -> FingerprintError:
    """Why an edit with this manifest does not fit the model at hand, whose fingerprint is ``actual``."""
    wanted, found = manifest.model, origin(model)
    seal = manifest.seal if isinstance(manifest, WeightManifest) else None
    if seal is not None and actual == seal.result:
        return FingerprintError(f"This edit is in {found} already.", "There is nothing to apply; revert takes it out.")
    if wanted.architecture != found.architecture:
        return FingerprintError(
            f"This edit was made for {wanted}, not for {found}.",
            "Give the model that it was made for, or make the edit again for this one.",
        )
    fix = "Give that checkpoint itself, with the edits that were in it then and no others, or make the edit again."
    if model.dtype != torch.float32:
        fix = f"This one is loaded in {model.dtype}: load it in float32, or make the edit again."
    return FingerprintError(
        f"This edit was made for {wanted} with fingerprint {manifest.fingerprint[:_SHOWN]}, not for {found} with"
        f" fingerprint {actual[:_SHOWN]}.",
        fix,
    )


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
