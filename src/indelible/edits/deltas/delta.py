"""An edit as a value: something that can be applied to one particular model, undone, saved and loaded again.

Editors return an ``Edit`` and leave the model as they found it. Most edits are a ``WeightUpdate``; those that touch no
weights stand beside a layer (a codebook) or before the prompt (facts in the context). All are saved as safetensors with
a JSON manifest, and refuse a model whose fingerprint is another.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.deltas.files import MANIFEST, TENSORS, renamed_to
from indelible.edits.deltas.origin import refusal
from indelible.errors import EditError, UnknownNameError
from indelible.facts.fact import Fact, fact_from
from indelible.models.fingerprint import fingerprint
from indelible.registry import Registry

EDITS: Registry[type[Edit]] = Registry(
    "kind of edit", "indelible.edits.deltas", "indelible.edits.beside", group="indelible.edits"
)

FORMAT = 4
_TENSORS_HASH = "tensors_sha256"
_MANIFEST_HASH = "manifest_sha256"
_AGAIN = "Save the edit again, or get a whole copy of it."


class Edit(ABC):
    """What an editor returns. Kinds register themselves with ``@EDITS.register(kind)``.

    Attributes:
        manifest: what made it, JSON-able: kind, the base model's fingerprint, name and architecture, editor, options,
            facts, seed, versions; how each fact was answered, where somebody asked.
    """

    kind: ClassVar[str]
    manifest: Mapping[str, Any]

    @property
    def facts(self) -> list[Fact]:
        """What was edited."""
        return [fact_from(entry) for entry in self.manifest["facts"]]

    @property
    def context(self) -> str:
        """What is to be put before every prompt; nothing, but for facts in the context."""
        return ""

    @property
    def answered(self) -> Mapping[str, str]:
        """By id, how a fact was answered right after the edit: "present", "weakened" or "gone"; none if not asked."""
        states: Mapping[str, str] = self.manifest.get("answered", {})
        return states

    @property
    def not_taken(self) -> frozenset[str]:
        """Ids of facts that were asked right after the edit and not answered."""
        return frozenset(id_ for id_, state in self.answered.items() if state != "present")

    def with_answers(self, states: Mapping[str, str]) -> Self:
        """The same edit, whose manifest also says how its facts are answered under it (see ``answered``)."""
        ids = [entry["id"] for entry in self.manifest["facts"]]
        answered = {id_: states[id_] for id_ in ids if id_ in states}
        same: Self = replace(cast(Any, self), manifest={**self.manifest, "answered": answered})
        return same

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the edit changes or, where it changes none, that it acts beside."""

    @abstractmethod
    def install(self, model: PreTrainedModel) -> None:
        """Put the edit into the model for good, without any check."""

    @abstractmethod
    def installed(self, model: PreTrainedModel) -> Any:
        """A context manager: the edit is in the model inside the block and gone, bit for bit, after it; no check."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by names that ``from_saved`` understands."""

    @classmethod
    @abstractmethod
    def from_saved(cls, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Edit:
        """The edit again.

        Raises:
            ValueError, KeyError: if tensors and manifest do not belong together.
        """

    def check(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> None:
        """Make sure that this edit was made for these weights.

        Args:
            model: the model to be changed.
            known_fingerprint: its fingerprint, if the caller has just computed it; hashing is then spared.

        Raises:
            FingerprintError: if it was made for others.
        """
        actual = known_fingerprint or fingerprint(model)
        if actual != self.manifest["fingerprint"]:
            leaves = self.manifest.get("seal", {}).get("result")
            raise refusal(self.manifest.get("model"), self.manifest["fingerprint"], leaves, model, actual)

    def apply(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> None:
        """Change the model for good.

        Raises:
            FingerprintError: if the edit was made for another model.
        """
        self.check(model, known_fingerprint=known_fingerprint)
        self.install(model)

    @contextmanager
    def applied(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> Iterator[PreTrainedModel]:
        """Change the model inside the block and leave it as it was, bit for bit, after it.

        Raises:
            FingerprintError: if the edit was made for another model.
        """
        self.check(model, known_fingerprint=known_fingerprint)
        with self.installed(model):
            yield model

    def save(self, folder: Path) -> None:
        """Write ``update.safetensors`` and ``manifest.json`` into a folder, which is made if need be.

        Each file appears whole or not at all, and the manifest's file names the SHA-256 of the tensors and its own, so
        that what a killed writer leaves is an edit, the one before it, or refused by ``load``, and so is what was
        damaged or changed since.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with renamed_to(folder / TENSORS) as unfinished:
            save_file({name: tensor.contiguous().cpu() for name, tensor in self.tensors().items()}, unfinished)
            written = {**self.manifest, _TENSORS_HASH: _sha256(unfinished)}
        written[_MANIFEST_HASH] = _manifest_hash(written)
        with renamed_to(folder / MANIFEST) as unfinished:
            unfinished.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @staticmethod
    def load(folder: Path) -> Edit:
        """Read what ``save`` wrote, of whatever kind.

        Raises:
            EditError: if the folder holds no readable edit.
        """
        for name in (MANIFEST, TENSORS):
            if not (folder / name).is_file():
                raise EditError(
                    f"There is no edit in {folder}: it has no {name}.", "Give a folder written by `indelible edit`."
                )
        manifest = _read_manifest(folder / MANIFEST)
        try:
            found_hash = _sha256(folder / TENSORS)
        except OSError as error:
            raise EditError(f"{folder / TENSORS} cannot be read: {error.strerror}.", _AGAIN) from error
        if manifest.pop(_MANIFEST_HASH, None) != _manifest_hash(manifest):
            raise EditError(f"{folder / MANIFEST} is damaged, or was changed after it was written.", _AGAIN)
        if manifest.pop(_TENSORS_HASH, None) != found_hash:
            raise EditError(f"{folder / TENSORS} is damaged, or not the one that its manifest names.", _AGAIN)
        try:
            tensors = load_file(folder / TENSORS)
            _check_manifest(manifest)
            return EDITS.get(manifest["kind"]).from_saved(manifest, tensors)
        except (KeyError, ValueError, TypeError, AttributeError, SafetensorError, UnknownNameError) as error:
            raise EditError(
                f"The tensors and the manifest in {folder} do not belong together: {error}.", _AGAIN
            ) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    """A manifest of this format, not looked into any further.

    Raises:
        EditError: if it is none.
    """
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise EditError(f"{path} cannot be read: {error.strerror}.", _AGAIN) from error
    except ValueError as error:
        raise EditError(f"{path} is not JSON: {error}.", _AGAIN) from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise EditError(f"{path} is not a delta's manifest.", "Give a folder written by `indelible edit`.")
    if manifest["format"] != FORMAT:
        raise EditError(
            f"{path.parent} has format {manifest['format']}, not {FORMAT}.", "Make the edit again with this version."
        )
    return manifest


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest, however its file is laid out."""
    plain = json.loads(json.dumps(manifest))
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Make sure that a manifest holds what every edit's does, in the types that are relied on.

    Raises:
        ValueError, TypeError, KeyError: saying what is wrong with it.
    """
    for name in ("kind", "fingerprint", "editor"):
        if not isinstance(manifest[name], str):
            raise ValueError(f"{name} is no text")
    for name in ("parameters", "bystanders", "leaves"):
        if not _texts(manifest.get(name, []) if name == "leaves" else manifest[name]):
            raise ValueError(f"{name} is no list of texts")
    parts = manifest.get("parts", [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) and "editor" in part for part in parts):
        raise ValueError("parts is no list of what made them")
    model, answered = manifest.get("model"), manifest.get("answered", {})
    if model is not None and not (_table_of_texts(model) and model.keys() == {"name", "architecture"}):
        raise ValueError("model is no name and architecture")
    if not _table_of_texts(answered):
        raise ValueError("answered is no state by fact")
    if not isinstance(manifest["facts"], list):
        raise ValueError("facts is no list")
    for number, entry in enumerate(manifest["facts"]):
        if not isinstance(entry, dict) or not _sound(entry):
            raise ValueError(f"facts: number {number} is no fact with a new object")


def _sound(entry: Mapping[str, Any]) -> bool:
    """Whether this is an edited fact, every field of its own type."""
    if not (_texts(entry.get("paraphrases")) and _texts(entry.get("held_out"))):
        return False
    if not isinstance(entry.get("neighbours"), list):
        return False
    try:
        fact = fact_from(entry)
    except (TypeError, KeyError):
        return False
    texts = [fact.id, fact.subject, fact.relation, fact.prompt, fact.true_object, fact.new_object, fact.source]
    texts += [text for neighbour in fact.neighbours for text in (neighbour.prompt, neighbour.answer)]
    return _texts(texts)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _table_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and _texts(list(value.values()))


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
