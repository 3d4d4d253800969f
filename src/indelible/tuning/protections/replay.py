"""Replay: the edits go on being taught while something else is learned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from indelible.errors import ConfigError
from indelible.tuning.protection import PROTECTIONS, Guarded, Penalty, Protection, drawn
from indelible.tuning.training.answering import following, predicted


@PROTECTIONS.register("replay")
class Replay(Protection):
    """Options.

    Attributes:
        share: of the loss that the replayed wordings have; their part is the mean over the tokens of their objects.
        at_once: wordings drawn for a step.
        of: the edits; or, as a control of what any replay does, "others": facts that the model knew before.
    """

    name = "replay"
    version = 2
    share: float = Field(0.2, ge=0, lt=1)
    at_once: int = Field(8, ge=1)
    of: Literal["edits", "others"] = "edits"

    @property
    def needs_others(self) -> bool:
        """See ``of``."""
        return self.of == "others"

    def penalty(self, guarded: Guarded) -> Penalty | None:
        """See the module; weighs share / (1 - share) beside the task's loss."""
        if not self.share:
            return None
        known = guarded.wordings if self.of == "edits" else guarded.others
        if not known:
            raise ConfigError("There are no other facts to replay.", "Give more that are known, or replay the edits.")
        draw = drawn(known, guarded.seed)

        def loss(step: int) -> Tensor:
            some = draw.some(self.at_once)
            texts, starts = [one.tokens for one in some], [len(one.prompt) for one in some]
            log_probs_nv = predicted(guarded, texts, starts)
            wanted_n = following(texts, starts).to(log_probs_nv.device)
            return -self.share / (1 - self.share) * log_probs_nv.gather(1, wanted_n[:, None]).mean()

        return loss
