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
        of: the edits; or, as a control of what any replay does, "others": facts that the model knew before.
    """

    name = "replay"
    version = 3
    share: float = Field(0.2, ge=0, lt=1)
    of: Literal["edits", "others"] = "edits"

    @property
    def needs_others(self) -> bool:
        """See ``of``."""
        return self.of == "others"

    @property
    def strength(self) -> float:
        """The share over that of the task's loss."""
        return self.share / (1 - self.share)

    def things(self, guarded: Guarded) -> Sequence[Wording]:
        """See ``of``."""
        known = guarded.wordings if self.of == "edits" else guarded.others
        if not known:
            raise ConfigError("There are no other facts to replay.", "Give more that are known, or replay the edits.")
        return known

    def change(self, guarded: Guarded, things: Sequence[Wording], kept: Sequence[Any]) -> Tensor:
        """How unlikely their objects are, nats a token."""
        texts, starts = [one.tokens for one in things], [len(one.prompt) for one in things]
        log_probs_nv = predicted(guarded, texts, starts)
        wanted_n = following(texts, starts).to(log_probs_nv.device)
        return -log_probs_nv.gather(1, wanted_n[:, None]).mean()
