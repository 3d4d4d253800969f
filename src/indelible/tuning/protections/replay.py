"""Replay: the edits go on being taught while something else is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from indelible.errors import ConfigError
from indelible.tuning.protection import PROTECTIONS, Guarded, Rehearsed, Wording
from indelible.tuning.training.answering import following, predicted


@PROTECTIONS.register("replay")
class Replay(Rehearsed):
    """Options, beside those of ``Rehearsed``.

    Attributes:
        share: of the loss that the replayed wordings have; their part is the mean over the tokens of their objects.
        of: the edits; or, as a control of what any replay does, "others": facts that the model knew before; or "both",
            as many of each at a time, so that what keeps edits costs less of what else is known.
    """

    name = "replay"
    version = 3
    share: float = Field(0.2, ge=0, lt=1)
    of: Literal["edits", "others", "both"] = "edits"

    @property
    def needs_others(self) -> bool:
        """See ``of``."""
        return self.of != "edits"

    @property
    def strength(self) -> float:
        """The share over that of the task's loss."""
        return self.share / (1 - self.share)

    def read(self, wordings: int) -> float:
        """Those of each kind that are drawn."""
        return super().read(wordings) * (2 if self.of == "both" else 1)

    def kinds(self, guarded: Guarded) -> Sequence[Sequence[Wording]]:
        """See ``of``."""
        found = [guarded.wordings] if self.of != "others" else []
        found += [guarded.others] if self.of != "edits" else []
        if not all(found):
            raise ConfigError("There are no other facts to replay.", "Give more that are known, or replay the edits.")
        return found

    def change(self, guarded: Guarded, things: Sequence[Wording], kept: Sequence[Any]) -> Tensor:
        """How unlikely their objects are, nats a token."""
        texts, starts = [one.tokens for one in things], [len(one.prompt) for one in things]
        log_probs_nv = predicted(guarded, texts, starts)
        wanted_n = following(texts, starts).to(log_probs_nv.device)
        return -log_probs_nv.gather(1, wanted_n[:, None]).mean()
