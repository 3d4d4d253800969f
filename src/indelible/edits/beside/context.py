"""Facts in the context: an edit that is neither in the weights nor beside them, but in the text before each prompt.

The model stays what it is. Whoever asks puts ``context`` before the prompt, as ``exam.questions.Question`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.deltas.delta import EDITS, Edit
from indelible.edits.deltas.manifest import Manifest
from indelible.errors import EditError


class ContextManifest(Manifest):
    """What a context says of itself: also its text, and by fact's id the statements that it is made of."""

    kind: Literal["context"] = "context"
    statements: dict[str, tuple[str, ...]]
    context: str


@EDITS.register("context")
@dataclass(frozen=True, repr=False)
class Context(Edit):
    """Text that one particular model is to read before every prompt; no parameter is changed."""

    kind: ClassVar[str] = "context"
    manifests: ClassVar[type[Manifest]] = ContextManifest
    manifest: ContextManifest

    @property
    def context(self) -> str:
        """The text, which ends where a prompt may begin."""
        return self.manifest.context

    def install(self, model: PreTrainedModel) -> None:
        """Nothing can be put into a model for good.

        Raises:
            EditError: always, for who asks for it takes the model for edited.
        """
        raise EditError(
            "A context changes nothing in a model.", "Put its text before each prompt: edit.context + prompt."
        )

    def installed(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """The model as it is."""
        return nullcontext()

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    @classmethod
    def from_saved(cls, manifest: ContextManifest, tensors: Mapping[str, Tensor]) -> Context:
        """See ``Edit``."""
        return cls(manifest)
