"""FT-M: fine-tune one MLP projection on the new objects, as language models are fine-tuned.

The simple baseline that many an editor does not beat (Zhang et al. 2024, arXiv 2401.01286): cross-entropy on the
object's own tokens under teacher forcing, with the prompt masked.
"""

from __future__ import annotations

from typing import ClassVar

from indelible.edits.editor import EDITORS
from indelible.edits.editors.ft import FineTuning
from indelible.edits.solving.descent import Text, teacher_forced
from indelible.edits.solving.texts import Row


@EDITORS.register("ft-m")
class MaskedFineTuning(FineTuning):
    """Fine-tuning of one projection with the loss on the object alone."""

    name: ClassVar[str] = "ft-m"

    def text(self, row: Row) -> Text:
        return teacher_forced(row)
