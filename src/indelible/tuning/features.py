"""A row of one sequence: what most objectives make of an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NO_LOSS = -100
"""Label of a token without loss, as in torch's cross entropy."""


@dataclass(frozen=True)
class Features:
    """A row of one sequence.

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

    def as_dict(self) -> dict[str, Any]:
        """``input_ids`` and ``labels``."""
        return {"input_ids": list(self.input_ids), "labels": list(self.labels)}
