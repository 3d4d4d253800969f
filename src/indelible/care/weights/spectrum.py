"""What one checkpoint shows by itself: whether the rows of a layer's memory are more alike than its neighbours'.

A closed-form edit of one fact adds one direction, the fact's key, to every row of the weight that holds it, so that
rows point the same way more than before. That cosines between rows trace edits of ROME was found by Youssef et al.
(arXiv 2505.20819). Here it is the share of the rows, each scaled to length one, that lies in one direction, over that
of the layers near it. It is a sign and no proof: small edits and those of many facts do not show, and nothing keeps
training from making such a layer. `benchmarks/spectrum.py` measures how often it is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from indelible.care.weights.difference import largest
from indelible.errors import ModelError
from indelible.models.layout import find_layout
from indelible.models.load import LoadedModel, opened
from indelible.progress import Jobs
from indelible.watching import shown

if TYPE_CHECKING:
    import pandas as pd

STANDS_OUT = 1.75
"""How many times as alike as its neighbours' the rows of a memory have to be; 1.40 is the most in unedited SmolLM2."""
REACH = 2
"""So many layers before it and after it are a layer's neighbours."""


@dataclass(frozen=True)
class Rows:
    """How alike the rows of a layer's memory are.

    Attributes:
        share: of their squared length, each row scaled to length one, in the direction that holds most of it; 0 to 1.
        times: that over the median of its neighbours'; 0 where most of those are all zeros.
    """

    layer: int
    parameter: str
    share: float
    times: float

    @property
    def stands_out(self) -> bool:
        """Whether they are much more alike than its neighbours'."""
        return self.times > STANDS_OUT


@dataclass(frozen=True)
class Spectrum:
    """What was found in one checkpoint: all layers that have a memory, ascending."""

    rows: tuple[Rows, ...]

    def __repr__(self) -> str:
        return f"Spectrum({self.in_words})"

    @property
    def layers(self) -> list[int]:
        """Those that stand out, ascending."""
        return [one.layer for one in self.rows if one.stands_out]

    @property
    def in_words(self) -> str:
        """What may be said from it, and no more."""
        most = max(self.rows, key=lambda one: one.times)
        alike = f"rows of its memory are {most.times:.1f} times as alike as its neighbours'"
        if not self.layers:
            return (
                f"No layer stands out; most does layer {most.layer}, where {alike}. That does not say that there is no "
                "edit: weak ones and those of many facts do not show in one checkpoint."
            )
        if len(self.layers) > 1:
            found = f"Layers {', '.join(map(str, self.layers))} stand out, most layer {most.layer}"
        else:
            found = f"Layer {most.layer} stands out"
        return (
            f"{found}: {alike}. A strong edit of one fact looks so; training may, too. The checkpoint from before "
            "would decide."
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per layer."""
        import pandas as pd

        return pd.DataFrame(self._lines())

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {"in_words": self.in_words, "layers": self.layers, "rows": self._lines()}

    def _lines(self) -> list[dict[str, Any]]:
        return [{**asdict(one), "stands_out": one.stands_out} for one in self.rows]


def spectrum(model: LoadedModel | str, *, jobs: Jobs = shown) -> Spectrum:
    """Say whether a layer's memory looks as if it held an edit, from one checkpoint alone.

    Args:
        model: a model, or its name; left as it is.
        jobs: told how far the work is; by default bars are shown on a terminal and in a notebook.

    Raises:
        LayoutError: if the model's parts are not found.
        ModelError: if too few of its layers have a memory to say what is usual.
    """
    network = opened(model).model
    memories = find_layout(network).known_memories
    if len(memories) <= 2 * REACH:
        raise ModelError(
            f"Only {len(memories)} layers have a memory that editors change: too few to say what is usual.",
            "Give the checkpoint from before as well.",
        )
    shares: dict[int, float] = {}
    with torch.no_grad(), jobs("reading weights") as progress:
        for number, (layer, memory) in enumerate(memories.items(), 1):
            weight = network.get_parameter(memory.weight).detach()
            shares[layer] = share_of_one_direction(weight.T if memory.in_out else weight)
            if progress is not None:
                progress(number, len(memories), "layers")
    return Spectrum(
        tuple(
            Rows(layer, memories[layer].weight, share, share / (median(_near(shares, layer)) or math.inf))
            for layer, share in shares.items()
        )
    )


def share_of_one_direction(rows: Tensor) -> float:
    """Of the squared length of rows, each scaled to length one: the part in the direction that holds most. 0 to 1."""
    scaled = torch.nn.functional.normalize(rows.float(), dim=1)
    return largest(scaled) ** 2 / float(scaled.square().sum().clamp_min(1e-12))


def _near(shares: Mapping[int, float], layer: int) -> list[float]:
    places = list(shares)
    at = places.index(layer)
    return [shares[other] for other in places[max(0, at - REACH) : at + REACH + 1] if other != layer]
