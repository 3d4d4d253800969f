"""Objectives: what the loss is taken on, one file each.

An objective turns an example into features (token ids, and the labels that bear loss), names the task that it trains on
by default, and says what its held-out figure is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from indelible.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.tasks import Example

NO_LOSS = -100
"""Label of a token without loss, as in torch's cross entropy."""


@dataclass(frozen=True)
class Features:
    """One row of a batch.

    Attributes:
        input_ids: t token ids.
        labels: t labels; ``labels[i]`` is ``input_ids[i]`` where predicting that token bears loss, else NO_LOSS. The
            first is always NO_LOSS: nothing stands before it.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.input_ids) == len(self.labels), (len(self.input_ids), len(self.labels))
        assert self.labels[0] == NO_LOSS, self.labels[0]


class Objective(Protocol):
    """How examples become features.

    Attributes:
        default_task: name of the task that it trains on when none is named.
        heldout_figure: what the held-out figure is, for displays and reports.
    """

    default_task: str
    heldout_figure: str

    def features(self, tokenizer: PreTrainedTokenizerBase, example: Example, max_tokens: int) -> list[Features]:
        """Rows of at most ``max_tokens`` tokens; none when the example does not fit or has nothing to learn."""
        ...


OBJECTIVES: Registry[Objective] = Registry("objective", "indelible.tuning.objectives", "indelible.objectives")
