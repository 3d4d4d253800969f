"""Facts in the context: an edit that is neither in the weights nor beside them, but in the text before each prompt.

The model stays what it is. Whoever asks puts ``context`` before the prompt, as ``exam.questions.Question`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.deltas.delta import EDITS, Edit
from indelible.errors import EditError


@EDITS.register("context")
@dataclass(frozen=True)
class Context(Edit):
    """Text that one particular model is to read before every prompt.

    Attributes:
        manifest: see ``Edit``; beside that ``context``, the text, and by fact's id the ``statements`` that it is of.
    """

    kind: ClassVar[str] = "context"
    manifest: Mapping[str, Any]

    @property
    def context(self) -> str:
        """The text, which ends where a prompt may begin."""
        text: str = self.manifest["context"]
        return text

    @property
    def parameters(self) -> tuple[str, ...]:
        """None: every weight takes part, and none is changed."""
        return ()

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
    def from_saved(cls, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Context:
        """See ``Edit``."""
        if tensors or manifest["parameters"]:
            raise ValueError("there are tensors or parameters that a context does not have")
        if not isinstance(manifest["statements"], dict) or not isinstance(manifest["context"], str):
            raise ValueError("statements or context are not what they should be")
        return cls(manifest)
