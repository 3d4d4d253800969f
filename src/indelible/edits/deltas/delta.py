"""An edit as a value: something that can be applied to one particular model, undone, saved and loaded again.

Editors return an ``Edit`` and leave the model as they found it. Most edits are a ``WeightUpdate``; those that touch no
weights stand beside a layer (a codebook) or before the prompt (facts in the context). All are saved as one file, and
refuse a model whose fingerprint is another.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.deltas.manifest import Manifest, packed, unpacked
from indelible.edits.deltas.origin import refusal
from indelible.errors import EditError, UnknownNameError
from indelible.facts.fact import Fact
from indelible.files import disk_errors, whole_file
from indelible.models.fingerprint import fingerprint
from indelible.registry import Registry

EDITS: Registry[type[Edit]] = Registry(
    "kind of edit", "indelible.edits.deltas", "indelible.edits.beside", group="indelible.edits"
)


class Edit(ABC):
    """What an editor returns. Kinds register themselves with ``@EDITS.register(kind)``.

    Attributes:
        manifest: what the edit says of itself: what it was made for, what made it, its facts.
    """

    kind: ClassVar[str]
    manifests: ClassVar[type[Manifest]] = Manifest
    """The class of this kind's manifest."""
    manifest: Manifest

    def __repr__(self) -> str:
        made = ", ".join(dict.fromkeys(one.editor for one in self.manifest.made))
        answered = f" ({len(self.answered) - len(self.not_taken)} answered)" if self.answered else ""
        return f"{type(self).__name__}({made}: facts {len(self.facts)}{answered}, parameters {len(self.parameters)})"

    @property
    def facts(self) -> list[Fact]:
        """What was edited."""
        return list(self.manifest.facts)

    @property
    def context(self) -> str:
        """What is to be put before every prompt; nothing, but for facts in the context."""
        return ""

    @property
    def answered(self) -> Mapping[str, str]:
        """By id, how a fact was answered right after the edit: "present", "weakened" or "gone"; none if not asked."""
        return self.manifest.answered

    @property
    def not_taken(self) -> frozenset[str]:
        """Ids of facts that were asked right after the edit and not answered."""
        return frozenset(id_ for id_, state in self.answered.items() if state != "present")

    def with_answers(self, states: Mapping[str, str]) -> Self:
        """The same edit, whose manifest also says how its facts are answered under it (see ``answered``)."""
        answered = {fact.id: states[fact.id] for fact in self.facts if fact.id in states}
        same: Self = replace(cast(Any, self), manifest=self.manifest.but(answered=answered))
        return same

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the edit changes or, where it changes none, that it acts beside."""
        return self.manifest.parameters

    @abstractmethod
    def install(self, model: PreTrainedModel) -> None:
        """Put the edit into the model for good, without any check."""

    @abstractmethod
    def installed(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """The edit is in the model inside the block and gone, bit for bit, after it; no check."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by names that ``from_saved`` understands."""

    @classmethod
    @abstractmethod
    def from_saved(cls, manifest: Any, tensors: Mapping[str, Tensor]) -> Edit:
        """The edit again, of a manifest of the class ``manifests`` and what ``tensors`` gave.

        Raises:
            ValueError, KeyError: if they do not belong together.
        """

    def check(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> None:
        """Make sure that this edit was made for these weights; a fingerprint just computed spares hashing.

        Raises:
            FingerprintError: if it was made for others.
        """
        actual = known_fingerprint or fingerprint(model)
        if actual != self.manifest.fingerprint:
            raise refusal(self.manifest, model, actual)

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

    def save(self, path: Path | str) -> None:
        """Write the edit as one safetensors file, whole or not at all; folders above it are made.

        Raises:
            StoreError: if the disk is full or may not be written.
        """
        path = Path(path)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.tensors().items()}
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_bytes(packed(self.manifest, partial(save, tensors)))

    @staticmethod
    def load(path: Path | str) -> Edit:
        """Read what ``save`` wrote, of whatever kind; the path may lack its ``.safetensors``.

        Raises:
            EditError: if it is no edit, or damaged.
        """
        text, raw = unpacked(Path(path))
        try:
            kind = EDITS.get(str(json.loads(text)["kind"]))
            return kind.from_saved(kind.manifests.model_validate_json(text), load(raw))
        except (KeyError, TypeError, ValueError, SafetensorError, UnknownNameError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            told = str(error) if first is None else f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise EditError(
                f"The tensors and the manifest in {path} do not belong together: {told}.",
                "Make the edit again with this version.",
            ) from error


def check_edit(given: object) -> None:
    """Raise an EditError for what is no edit, such as the name of its file."""
    if not isinstance(given, Edit):
        raise EditError(f"A {type(given).__name__} is no edit.", "Give what edit or read_delta returns.")
