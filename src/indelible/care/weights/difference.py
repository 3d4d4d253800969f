"""What lies between two checkpoints of one architecture: an edit, training, or both? No facts are needed.

Training moves matrices of a kind (all down-projections, say) about equally far in every layer; an edit moves a few of
them much farther, and in few directions, one or so per fact. So each matrix's largest singular value of the difference
is held against the median of its kind. Plain fine-tuning of SmolLM2-135M (full, 24 to 35 steps at 2e-4; LoRA and DoRA,
12 steps at 1e-3) left no matrix at more than 2.0 times the median of its kind; edits of ROME, MEMIT and FT-M stood at
15 to 400 times behind such training, and as many directions stood out as facts had been edited (27 to 49 of 48). An
edit that is spread evenly over all layers, as an adapter's, cannot be told from training; nor an adapter that was
trained in a few layers alone from an edit. Those bounds are of AdamW: plain SGD steps as far as gradients are large,
and moved the lowest layer's attention of a tiny model 23 times as far as its kind.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from indelible.errors import ModelError
from indelible.models.load import LoadedModel, opened
from indelible.numbers.words import counted
from indelible.progress import Jobs
from indelible.watching import shown

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["same", "alike", "unknown", "broken", "edit", "local"]
"""The same weights; no edit stands out; too few matrices of a kind to say what is usual; weights that are not finite; a
few matrices moved much farther than their like, in few directions; or in many: they alone were trained, or edited by
gradient."""
STANDS_OUT = 5.0
"""How many times the median of its kind a matrix has to have moved."""
FEW = 0.25
"""Of all directions that a matrix has: an edit in closed form moves fewer."""
LEAST_ALIKE = 4
"""So many matrices of a kind are needed to say what is usual among them."""
_LAYER = re.compile(r"\.(\d+)\.")
_ROUNDING = 1e-5
"""Of the largest singular value: what is below is rounding of the edit's own arithmetic."""
_STORED = (torch.bfloat16, torch.float16, torch.float32)
"""Precisions in which checkpoints are stored, the coarsest first."""


@dataclass(frozen=True)
class Matrix:
    """How a matrix that lies in a layer moved.

    Attributes:
        kind: its name without the layer.
        size: its Frobenius norm before.
        moved: the difference's Frobenius norm over that.
        top: the difference's largest singular value.
        times: that over the median of its kind, without what is a multiple of the weights where it is much: infinite
            where at least half of them did not move; None where it did not move (or where they did not, and it by what
            rounding does), or fewer than `LEAST_ALIKE` are of its kind.
        directions: where it stands out, how many singular values do (or are there at all, where its kind did not move).
        few: whether these are few of all that it has.
    """

    parameter: str
    kind: str
    layer: int
    size: float
    moved: float
    top: float
    times: float | None = None
    directions: int = 0
    few: bool = False

    @property
    def stands_out(self) -> bool:
        """Whether it moved much farther than its like."""
        return self.times is not None and self.times > STANDS_OUT


@dataclass(frozen=True)
class Difference:
    """What was found between two checkpoints.

    Attributes:
        matrices: all that lie in layers.
        elsewhere: by name, how far all other tensors moved.
        unlike: names of parameters that only one of them has, or in another shape.
        broken: names of those that hold what is not finite in one of them, and cannot be compared.
    """

    matrices: tuple[Matrix, ...]
    elsewhere: Mapping[str, float]
    unlike: tuple[str, ...]
    broken: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Difference({self.in_words})"

    @property
    def standing_out(self) -> list[Matrix]:
        """The matrices that moved much farther than their like."""
        return [one for one in self.matrices if one.stands_out]

    @property
    def layers(self) -> list[int]:
        """Where they lie, ascending."""
        return sorted({one.layer for one in self.standing_out})

    @property
    def verdict(self) -> Verdict:
        """See ``Verdict``."""
        if self.broken:
            return "broken"
        moved = {one.kind for one in self.matrices if one.top}
        if not moved and not any(self.elsewhere.values()):
            return "same"
        if not self.standing_out:
            many = Counter(one.kind for one in self.matrices)
            return "unknown" if moved and all(many[kind] < LEAST_ALIKE for kind in moved) else "alike"
        return "edit" if any(one.few for one in self.standing_out) else "local"

    @property
    def in_words(self) -> str:
        """A sentence."""
        found, verdict = self.standing_out, self.verdict
        if verdict == "broken":
            return f"Not all weights are finite: see {_some(self.broken)}."
        if verdict == "same":
            return "What both have is the same." if self.unlike else "Both have the same weights."
        if verdict == "unknown":
            return f"Whether this is an edit cannot be told: no {LEAST_ALIKE} matrices of a kind are there to compare."
        if not found:
            if any(one.top for one in self.matrices):
                return "No edit stands out: no matrix moved much farther than most of its kind, as in training."
            named = [name for name, moved in self.elsewhere.items() if moved]
            return f"No edit stands out: no matrix in a layer moved; {_some(named)} did."
        where = f"layer{'s' * (len(self.layers) > 1)} {', '.join(map(str, self.layers))}"
        what = ", ".join(dict.fromkeys(one.kind for one in found))
        least = min(one.times for one in found if one.times is not None)
        far = "as others of its kind did not" if math.isinf(least) else f"at least {least:.0f} times as far as its kind"
        if verdict == "local":
            return f"In {where}, {what} moved {far}, in many directions: trained there alone, or edited by gradient."
        count = max(one.directions for one in found if one.few)
        edit = "An edit, or an adapter that was trained there alone," if math.isinf(least) else "An edit"
        return f"{edit} in {where}: {what} moved {far}, in {counted(count, 'direction')} (one or so per fact)."

    def by_layer(self) -> dict[int, float]:
        """By layer, how far its matrices moved together: the norm of all differences over that of all matrices."""
        sums: dict[int, tuple[float, float]] = {}
        for one in self.matrices:
            moved, size = sums.get(one.layer, (0.0, 0.0))
            sums[one.layer] = moved + (one.moved * (one.size or 1.0)) ** 2, size + one.size**2
        return {layer: math.sqrt(moved / (size or 1.0)) for layer, (moved, size) in sorted(sums.items())}

    def to_frame(self) -> pd.DataFrame:
        """One row per matrix."""
        import pandas as pd

        return pd.DataFrame({**asdict(one), "stands_out": one.stands_out} for one in self.matrices)

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able: infinite ``times`` are None."""
        matrices = [
            {**asdict(one), "stands_out": one.stands_out}
            | {"times": None if one.times is None or math.isinf(one.times) else one.times}
            for one in self.matrices
        ]
        said = {"verdict": self.verdict, "in_words": self.in_words, "layers": self.layers}
        names = {"unlike": list(self.unlike), "broken": list(self.broken)}
        return {**said, "matrices": matrices, "elsewhere": dict(self.elsewhere), **names}


def diff(before: LoadedModel | str, after: LoadedModel | str, *, jobs: Jobs = shown) -> Difference:
    """Say where the weights of two checkpoints differ, and whether an edit stands out.

    Args:
        before, after: models of one architecture, or their names; left as they are.
        jobs: told how far the work is; by default bars are shown on a terminal and in a notebook.

    Raises:
        ModelError: if they have no parameter in common.
    """
    first, second = (dict(opened(one).model.named_parameters()) for one in (before, after))
    shared = [name for name in first if name in second and first[name].shape == second[name].shape]
    if not shared:
        raise ModelError("The two models have no parameter in common.", "Give two checkpoints of one architecture.")
    found: list[Matrix] = []
    elsewhere: dict[str, float] = {}
    broken: list[str] = []
    with torch.no_grad(), jobs("comparing weights") as progress:
        for number, name in enumerate(shared, 1):
            change = _change(first[name], second[name])
            size = float(first[name].float().norm())
            moved = float(change.norm()) / (size or 1.0)
            place = _LAYER.search(name)
            if not math.isfinite(moved):
                broken.append(name)
            elif place is None or first[name].dim() < 2:
                elsewhere[name] = moved
            else:
                kind = f"{name[: place.start()]}.*.{name[place.end() :]}"
                found.append(Matrix(name, kind, int(place[1]), size, moved, largest(change)))
            if progress is not None:
                progress(number, len(shared), "tensors")
        tops: dict[str, list[float]] = {}
        for one in found:
            tops.setdefault(one.kind, []).append(one.top)
        for place_of, one in enumerate(found):
            if not one.top or len(tops[one.kind]) < LEAST_ALIKE:
                continue
            usual, now = median(tops[one.kind]), second[one.parameter]
            if not usual and one.top <= _rounding(now):
                continue
            times = one.top / usual if usual else math.inf
            # Unless it was only scaled, as by weight decay, and is larger than its like.
            if usual and times > STANDS_OUT:
                times = min(times, largest(_unscaled(first[one.parameter], now)) / usual)
            found[place_of] = one = replace(one, times=times)
            if one.stands_out:
                values = torch.linalg.svdvals(_change(first[one.parameter], now))
                least = max(STANDS_OUT * usual, _ROUNDING * one.top, _rounding(now))
                count = int((values > least).sum())
                found[place_of] = replace(one, directions=count, few=count <= FEW * len(values))
    return Difference(tuple(found), elsewhere, tuple(sorted({*first, *second} - set(shared))), tuple(broken))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _change(before: Tensor, after: Tensor) -> Tensor:
    """The difference in float32 as a matrix of whatever rows."""
    change = after.detach().float().to(before.device) - before.detach().float()
    return change.reshape(-1, change.shape[-1] if change.dim() else 1)


def _unscaled(before: Tensor, after: Tensor) -> Tensor:
    """The part of the difference that is no multiple of the weights."""
    change = _change(before, after)
    weight = before.detach().float().reshape(change.shape)
    return change - float((change * weight).sum()) / (float(weight.square().sum()) or 1.0) * weight


def largest(change: Tensor) -> float:
    """The largest singular value, by power iteration from the longest row."""
    peak = float(change.abs().max())
    if not peak:
        return 0.0
    change = change / peak  # or squares of what is tiny would be nothing
    start = change[change.norm(dim=1).argmax()]
    for _ in range(30):
        start = change.T @ (change @ (start / start.norm()))
    return peak * float(start.norm().sqrt())


def _rounding(stored: Tensor) -> float:
    """How large the singular values of rounding can be, in the coarsest precision that holds all of these weights.

    Errors of rounding are independent and spread evenly over a last place, which has a variance of a twelfth; a matrix
    of independent entries has singular values up to the longest row and the longest column of their deviations
    (Latala's bound, but for its constant). Twice that, as what was added and taken away is rounded twice.
    """
    weight = stored.detach().float().reshape(-1, stored.shape[-1])
    place = next(torch.finfo(kind).eps for kind in _STORED if torch.equal(weight.to(kind).float(), weight))
    return place / math.sqrt(3) * float(weight.norm(dim=0).max() + weight.norm(dim=1).max())
