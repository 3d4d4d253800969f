"""Repair: every so many optimizer steps the edited wordings are asked, and facts that were lost are edited again.

A wording is lost where the object's tokens were the likeliest ones after it before training and no longer are. Its
fact is edited again as the edit was made, in the weights as they are then, in float32 whatever training computes in;
the optimizer's state, which is of gradients, stays as it is. The last steps of a run are looked after by
``indelible repair``, or by a number of steps that divides them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from indelible.edits.mending import Mender
from indelible.errors import ConfigError
from indelible.models.batches import in_pieces
from indelible.models.trace import as_stored, evaluation_mode
from indelible.tuning.protection import PROTECTIONS, WORDING_TOKENS, Correction, Guarded, Protection
from indelible.tuning.randomness import kept_random_state
from indelible.tuning.training.answering import following, predicted
from indelible.tuning.tuners.tuner import FULL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from indelible.models.layout import Layout

AT_ONCE = 128
"""Wordings that are asked in one pass."""

LOST, EDITING_TOKENS = 0.15, 110
"""What planning assumes: the share of facts that are found lost at an asking, and the tokens that go forth and back for
each wording while its fact is edited again."""
COVARIANCE_TOKENS = 20_000
"""Read once in a run, where something is lost; of most editors."""


@PROTECTIONS.register("repair")
class Repair(Protection):
    """Options.

    Attributes:
        every: optimizer steps from one asking to the next; 0 for none.
    """

    name = "repair"
    version = 3
    tuners: ClassVar[tuple[str, ...]] = (FULL,)
    mends: ClassVar[bool] = True
    every: int = Field(8, ge=0)

    def read(self, wordings: int) -> float:
        """All wordings forth, and the editing of what may be lost."""
        return wordings * (WORDING_TOKENS / 3 + LOST * EDITING_TOKENS) / self.every if self.every else 0.0

    def prepared(self, wordings: int) -> float:
        """All wordings, and the covariances of the first editing, which comes later."""
        return wordings * WORDING_TOKENS + COVARIANCE_TOKENS if self.every else 0.0

    def lacking(
        self, model: PreTrainedModel, layout: Layout, layers: Sequence[int], frozen: Collection[str]
    ) -> str | None:
        """That a mask freezes a memory which it would change."""
        memories = [f"{layout.memory(layer).path}.weight" for layer in layers if layer in layout.known_memories]
        held = next((name for name in memories if name in frozen), None)
        return None if held is None or not self.every else f"it would change {held}, which that freezes"

    def correction(self, guarded: Guarded) -> Correction | None:
        """See the module.

        Raises:
            ConfigError: if it is not said how to edit again, or what would be changed is not trained.
        """
        if not self.every:
            return None
        how, model = guarded.mending, guarded.model
        if how is None:
            raise ConfigError("Nothing says how facts are to be edited again.", "Give `mending`, see Mending.of.")
        trained = {name: one.requires_grad for name, one in model.named_parameters()}
        for name in how.parameters(model, guarded.layout):
            if not trained.get(name):
                raise ConfigError(
                    f"'repair' would change {name!r}, which is not trained.",
                    "Freeze other weights, take the tuner full, or repair the tuned model (indelible repair).",
                )
        with as_stored(model):
            before = answered(guarded)
        each = len(before) // len(how.facts)
        steps, menders = 0, list[Mender]()

        def repair(optimizer: torch.optim.Optimizer) -> None:
            nonlocal steps
            steps += 1
            if steps % self.every:
                return
            with kept_random_state(), evaluation_mode(model), as_stored(model):
                gone = [then and not now for then, now in zip(before, answered(guarded), strict=True)]
                lost, worked = ([*map(any, in_pieces(some, each))] for some in (gone, before))
                if any(lost) and not menders:
                    kept = [fact for fact, out, well in zip(how.facts, lost, worked, strict=True) if well and not out]
                    menders.append(Mender(how, model, guarded.tokenizer, kept))
                if any(lost):
                    menders[0].mend([fact for fact, out in zip(how.facts, lost, strict=True) if out])

        return repair


def answered(guarded: Guarded) -> list[bool]:
    """Whether the likeliest tokens after each edited wording are its object's."""
    found = []
    for some in in_pieces(guarded.wordings, AT_ONCE):
        texts, starts = [one.tokens for one in some], [len(one.prompt) for one in some]
        with torch.no_grad():
            likeliest_n = predicted(guarded, texts, starts).argmax(-1).cpu()
        right = (likeliest_n == following(texts, starts)).split([len(one.target) for one in some])
        found += [bool(part.all()) for part in right]
    return found
