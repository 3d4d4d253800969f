"""An edit as a value: what changes in which weights, and where it came from.

Editors return a ``WeightUpdate`` and leave the model as they found it. It can be applied for the length of a block (and
undone exactly), applied for good, saved as a few megabytes of safetensors with a JSON manifest, and loaded again. It
refuses a model whose fingerprint is not that of the one it was made for.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from indelible.errors import EditError, FingerprintError
from indelible.models.fingerprint import fingerprint

_TENSORS = "update.safetensors"
_MANIFEST = "manifest.json"
_TENSORS_HASH = "tensors_sha256"
FORMAT = 1


@dataclass(frozen=True)
class LowRank:
    """A difference of one parameter as two thin factors: ``left @ right`` has the parameter's own shape."""

    left: Tensor
    right: Tensor

    def difference(self) -> Tensor:
        """The difference in full, computed on the processor in float32 so that it is the same everywhere."""
        return self.left.float().cpu() @ self.right.float().cpu()


@dataclass(frozen=True)
class Dense:
    """A difference of one parameter, in full."""

    full: Tensor

    def difference(self) -> Tensor:
        """The difference in full, on the processor in float32."""
        return self.full.float().cpu()


Delta = LowRank | Dense


@dataclass(frozen=True)
class WeightUpdate:
    """A change of some parameters of one particular model.

    Attributes:
        deltas: by parameter name.
        manifest: what made it, JSON-able: base model's fingerprint, editor, options, facts, seed, library versions.
    """

    deltas: Mapping[str, Delta]
    manifest: Mapping[str, Any]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that change, in order."""
        return tuple(self.deltas)

    def check(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> None:
        """Make sure that this update was made for these weights.

        Args:
            model: the model to be changed.
            known_fingerprint: its fingerprint, if the caller has just computed it; hashing is then spared.

        Raises:
            FingerprintError: if it was made for others.
        """
        actual = known_fingerprint or fingerprint(model)
        if actual != self.manifest["fingerprint"]:
            raise FingerprintError(
                f"This update was made for a model with fingerprint {self.manifest['fingerprint'][:12]}, not for this"
                f" one ({actual[:12]}).",
                "Load the same checkpoint in the same precision (float32), or make the edit again.",
            )

    def apply(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> None:
        """Change the model's weights for good.

        Raises:
            FingerprintError: if the update was made for another model.
        """
        self.check(model, known_fingerprint=known_fingerprint)
        with torch.no_grad():
            for name, delta in self.deltas.items():
                add_difference(model.get_parameter(name), delta)

    @contextmanager
    def applied(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> Iterator[PreTrainedModel]:
        """Change the model's weights inside the block and put the old ones back, bit for bit, after it.

        Raises:
            FingerprintError: if the update was made for another model.
        """
        self.check(model, known_fingerprint=known_fingerprint)
        with restored(model, self.parameters):
            with torch.no_grad():
                for name, delta in self.deltas.items():
                    add_difference(model.get_parameter(name), delta)
            yield model

    def save(self, folder: Path) -> None:
        """Write ``update.safetensors`` and ``manifest.json`` into a folder, which is made if need be.

        Each file appears whole or not at all, and the manifest's file names the SHA-256 of the tensors, so that what a
        killed writer leaves is an update, the one before it, or refused by ``load``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, delta in self.deltas.items():
            if isinstance(delta, LowRank):
                tensors[f"{name}:left"] = delta.left.contiguous().cpu()
                tensors[f"{name}:right"] = delta.right.contiguous().cpu()
            else:
                tensors[f"{name}:full"] = delta.full.contiguous().cpu()
        with _renamed_to(folder / _TENSORS) as unfinished:
            save_file(tensors, unfinished)
            written = {**self.manifest, _TENSORS_HASH: _sha256(unfinished)}
        with _renamed_to(folder / _MANIFEST) as unfinished:
            unfinished.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @staticmethod
    def load(folder: Path) -> WeightUpdate:
        """Read what ``save`` wrote.

        Raises:
            EditError: if the folder holds no readable update.
        """
        try:
            manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
            found_hash = _sha256(folder / _TENSORS)
            tensors = load_file(folder / _TENSORS)
        except (OSError, ValueError, SafetensorError) as error:
            raise EditError(f"{folder} holds no readable weight update: {error}.", "Save the edit again.") from error
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise EditError(f"{folder} has format {found}, not {FORMAT}.", "Save the edit again.")
        if manifest.pop(_TENSORS_HASH, None) != found_hash:
            raise EditError(f"The tensors in {folder} are not those of its manifest.", "Save the edit again.")
        deltas: dict[str, Delta] = {}
        for name in dict.fromkeys(key.rpartition(":")[0] for key in tensors):
            if f"{name}:full" in tensors:
                deltas[name] = Dense(tensors[f"{name}:full"])
            elif f"{name}:left" in tensors and f"{name}:right" in tensors:
                deltas[name] = LowRank(tensors[f"{name}:left"], tensors[f"{name}:right"])
        if set(deltas) != set(manifest.get("parameters", ())) or "fingerprint" not in manifest:
            raise EditError(f"The tensors and the manifest in {folder} do not belong together.", "Save the edit again.")
        return WeightUpdate({name: deltas[name] for name in manifest["parameters"]}, manifest)


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its name when the block ends well."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as opened:
        unfinished = Path(opened.name)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def add_difference(parameter: Tensor, delta: Delta) -> None:
    """Add a difference to a parameter in place."""
    parameter.add_(delta.difference().to(device=parameter.device, dtype=parameter.dtype))


@contextmanager
def restored(model: PreTrainedModel, parameters: tuple[str, ...]) -> Iterator[None]:
    """Whatever happens to these parameters inside the block, they have their old bits after it."""
    kept = {name: model.get_parameter(name).detach().clone() for name in parameters}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, old in kept.items():
                model.get_parameter(name).copy_(old)
