"""How large an edit is: the Frobenius norm of each weight's change, read from the saved edit without any model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from indelible.edits.deltas.files import MANIFEST, TENSORS

Floats = NDArray[np.float64]


def update_norms(step: Path) -> dict[str, float]:
    """Norm of the change of each weight, the mean over copies in isolated arms.

    Args:
        step: folder of a finished ``edit`` step.

    Returns:
        Name of the parameter -> norm; empty for edits that change no weight.
    """
    found: dict[str, list[float]] = {}
    for folder in (step / "edit", *sorted((step / "edits").glob("*"))):
        if folder.is_dir():
            for name, norm in _norms(folder).items():
                found.setdefault(name, []).append(norm)
    return {name: sum(norms) / len(norms) for name, norms in found.items()}


def product_norm(left: Floats, right: Floats) -> float:
    """Frobenius norm of ``left @ right`` without forming it: the square root of tr(LᵀL RRᵀ).

    Args:
        left: (d, r).
        right: (r, k).
    """
    return float(np.sqrt(max(float(((left.T @ left) * (right @ right.T)).sum()), 0.0)))


def _norms(folder: Path) -> dict[str, float]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["kind"] != "weights":
        return {}
    tensors = load_file(folder / TENSORS)
    norms = {}
    for name in manifest["parameters"]:
        if f"{name}:full" in tensors:
            norms[name] = float(np.linalg.norm(tensors[f"{name}:full"].astype(np.float64)))
        else:
            left, right = (tensors[f"{name}:{side}"].astype(np.float64) for side in ("left", "right"))
            norms[name] = product_norm(left, right)
    return norms
