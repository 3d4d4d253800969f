"""Why facts were lost: each parameter group's share of the loss, and what freezing it would have saved.

The tables come from mixtures (see ``probing.mixtures``): the model in which some groups of parameters have their tuned
weights and the rest the edited ones, asked the same exam for every subset of groups. How much a group contributes
depends on which others have moved already; its *share* is its contribution averaged over all orders in which the groups
could be exchanged one after another, the Shapley value (L. S. Shapley, *A value for n-person games*, 1953). It is the
only division that gives nothing to a group that never matters, treats equal groups alike, and adds up: the shares of
all groups sum to exactly what was lost. A share below zero is of a group whose change brought facts back.

Shares say where the change lies that made the model forget, not where training would have put it had it been hindered:
see `mask_forecast`. Functions here are pure: frames in, frames out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import factorial, nan
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indelible.analysis.metrics import require_columns
from indelible.analysis.statistics import Pairs, rate_interval
from indelible.analysis.summary import arm_generator
from indelible.errors import DataError, suggest

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "embeddings": "embeddings",
        "below": "embeddings and layers below the edit",
        "projections": "edited projections",
        "beside": "rest of the edited layers",
        "layers": "layers and final norm",
        "above": "layers above the edit, final norm",
        "head": "output head",
        "tied": "embeddings and head (one tensor)",
    }
)
"""Parameter groups in the order of the model, with what to call them. ``embeddings`` and ``layers`` are the groups of
edits that act in no layer in particular."""

NO_GROUP = "none"
"""The mixture in which every group has its edited weights."""

AROUND_THE_EDIT = frozenset({"below", "projections", "beside", "above"})

MASKS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "none": frozenset(),
        "edited-weights": frozenset({"projections"}),
        "only-edited-weights": frozenset({"below", "beside", "above", "head", "tied"}),
        "edited-layers": frozenset({"projections", "beside"}),
        "only-edited": frozenset({"below", "above", "head", "tied"}),
        "up-to-edited": frozenset({"below", "projections", "beside", "tied"}),
        "from-edited": frozenset({"projections", "beside", "above", "head", "tied"}),
        "head": frozenset({"head", "tied"}),
    }
)
"""Built-in freeze masks as the groups that they freeze, by the name that a study file uses. They are exact where the
edited layers follow one another; with gaps, the layers in between count as edited here."""

ROW_COLUMNS = ("arm", "seed", "fact_set", "fact_id", "mixture", "success", "log_prob")
COLUMNS = ("arm", "fact_set", "group", "share", "low", "high", "of_loss", "facts", "seeds")
FORECAST_COLUMNS = ("arm", "mask", "retention_edited", "low", "high", "gain", "gain_low", "gain_high", "facts", "seeds")

Loss = Literal["success", "log_prob"]

_NATS = 10**6
"""Log-probabilities are counted in millionths of a nat: intervals are of sums of whole numbers."""


def shares(rows: pd.DataFrame, *, of: Loss = "success", draws: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Each group's share of what tuning cost, over the facts that had succeeded in the edited model.

    Args:
        rows: one row per arm × seed × fact × mixture with the columns arm, seed, fact_set, fact_id, mixture, success,
            log_prob; ``mixture`` names the groups with tuned weights, joined by ``+``, or is ``none``. Every subset of
            an arm's groups has to be there.
        of: "success" divides the loss of retention, 1 minus the share of those facts that still succeed; "log_prob"
            divides the mean fall of the answer's log-probability, in nats.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        One row per arm × fact set × group, groups in the order of LABELS: ``share`` (a fraction, or nats), its 95%
        interval ``low`` to ``high`` by bootstrap over seeds and facts, ``of_loss`` (share over the loss; NaN where
        nothing was lost), ``facts`` (those that had succeeded, over all seeds) and ``seeds``. The shares of a set sum
        to its loss. Where no fact had succeeded, ``facts`` is 0 and the figures are NaN. A group that did not change in
        some seed has a share of exactly 0 there.

    Raises:
        DataError: if a column or a mixture is missing, or a fact stands in one mixture twice.
    """
    lines: list[tuple[object, ...]] = []
    for arm, own in _by_arm(rows):
        generator = arm_generator(seed, arm)
        for fact_set in sorted(own["fact_set"].unique()):
            exams = _exams(own[own["fact_set"] == fact_set], of)
            groups = _in_order({group for exam in exams.values() for group in exam.groups})
            unit = factorial(len(groups)) if of == "success" else _NATS
            parts = {number: _shapley(exam, groups) for number, exam in exams.items()}
            found = [
                _Mean({number: exams[number].pairs(part[:, place], unit) for number, part in parts.items()})
                for place in range(len(groups))
            ]
            total = sum(mean.value for mean in found)
            n_facts, n_seeds = _sizes(exams)
            for group, mean in zip(groups, found, strict=True):
                low, high = mean.interval(draws, generator)
                of_loss = mean.value / total if total else nan
                lines.append((arm, fact_set, group, mean.value, low, high, of_loss, n_facts, n_seeds))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def mask_forecast(rows: pd.DataFrame, *, draws: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """What each built-in freeze mask would have kept of the edits, had training elsewhere gone as it did.

    That is the retention of the mixture in which the groups that the mask freezes have their edited weights and all
    others the tuned ones. It is a forecast and no result: training with a mask goes on elsewhere until the loss is as
    low, and can move the other groups further, or otherwise, than it did without. A mask whose forecast gains nothing
    has nothing in its groups that cost edits; one whose forecast gains much is worth a run.

    Args:
        rows: as for `shares`; only the edited set is read.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        One row per arm × mask: ``retention_edited``, its 95% interval ``low`` to ``high``, ``gain`` over the mask
        "none" (over the tuning as it was, whatever mask that had) with its paired interval ``gain_low`` to
        ``gain_high``, ``facts`` and ``seeds``. Left out are masks that freeze nothing that tuning changed, masks that
        leave nothing of it, and, for edits that act in no layer in particular, masks that go by the edit. Arms in which
        no edited fact had succeeded have no rows.

    Raises:
        DataError: as `shares`.
    """
    lines: list[tuple[object, ...]] = []
    for arm, own in _by_arm(rows):
        generator = arm_generator(seed, arm)
        exams = _exams(own[own["fact_set"] == "edited"], "success")
        n_facts, n_seeds = _sizes(exams)
        if n_facts == 0:
            continue
        for mask in _masks({group for exam in exams.values() for group in exam.groups}):
            kept = {number: 1 - exam.losses(set(exam.groups) - MASKS[mask]) for number, exam in exams.items()}
            as_tuned = {number: 1 - exam.losses(set(exam.groups)) for number, exam in exams.items()}
            retention = _Mean({number: exam.pairs(kept[number], 1) for number, exam in exams.items()})
            gain = _Mean({number: exam.pairs(kept[number] - as_tuned[number], 1) for number, exam in exams.items()})
            low, high = retention.interval(draws, generator)
            gain_low, gain_high = gain.interval(draws, generator)
            lines.append((arm, mask, retention.value, low, high, gain.value, gain_low, gain_high, n_facts, n_seeds))
    return pd.DataFrame(lines, columns=list(FORECAST_COLUMNS))


@dataclass(frozen=True)
class _Exam:
    """One seed's facts of one set in every mixture.

    Attributes:
        groups: that changed, in order.
        lost: (facts, 2 ** groups): what each fact lost against the mixture 0; bit i of a column's number says that
            group i has its tuned weights.
        succeeded: (facts,) whether the fact had succeeded in the mixture 0.
    """

    groups: tuple[str, ...]
    lost: NDArray[np.float64]
    succeeded: NDArray[np.bool_]

    def losses(self, tuned: Collection[str]) -> NDArray[np.float64]:
        """What each fact lost in the mixture in which these groups have their tuned weights."""
        return self.lost[:, _number(self.groups, tuned)]

    def pairs(self, values: NDArray[np.float64], unit: int) -> Pairs:
        """Values per fact as whole numbers of 1/unit, over unit where the fact had succeeded and over 0 elsewhere.

        Facts that had not succeeded are part of the sample that intervals redraw, as everywhere in `statistics`.
        """
        hits = np.where(self.succeeded, np.rint(values * unit), 0)
        return np.stack([hits, unit * self.succeeded], axis=1).astype(np.int64)


@dataclass(frozen=True)
class _Mean:
    """A mean over facts, pooled over seeds, as pairs per seed."""

    pairs: Mapping[int, Pairs]

    @property
    def value(self) -> float:
        """NaN where nothing is counted."""
        hits, asked = np.sum([part.sum(axis=0) for part in self.pairs.values()], axis=0)
        return float(hits / asked) if asked else nan

    def interval(self, draws: int, generator: np.random.Generator) -> tuple[float, float]:
        """95%; NaN where there is none."""
        found = rate_interval(self.pairs, draws=draws, generator=generator)
        return (nan, nan) if found is None else (found.low, found.high)


def _by_arm(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Arms in order of appearance, with their rows."""
    require_columns(rows, ROW_COLUMNS, "table of mixtures")
    for arm in rows["arm"].drop_duplicates():
        yield str(arm), rows[rows["arm"] == arm]


def _exams(rows: pd.DataFrame, of: Loss) -> dict[int, _Exam]:
    """One fact set of one arm, by seed."""
    return {int(str(number)): _exam(part, of) for number, part in rows.groupby("seed", sort=True)}


def _exam(rows: pd.DataFrame, of: Loss) -> _Exam:
    twice = rows.duplicated(["fact_id", "mixture"])
    if twice.any():
        first = rows[twice].iloc[0]
        raise DataError(
            f"Fact {first['fact_id']!r} stands twice in the mixture {first['mixture']!r}.", "Run the step again."
        )
    names = [str(name) for name in rows["mixture"].unique()]
    groups = _in_order({group for name in names for group in _tuned_in(name)})
    columns = {_number(groups, _tuned_in(name)): name for name in names}
    values = rows.pivot(index="fact_id", columns="mixture", values=of).astype("float64")
    if len(columns) < 2 ** len(groups) or values.isna().to_numpy().any():
        raise DataError(
            f"Of the mixtures of {', '.join(groups) or 'no group'}, some are missing for some facts.",
            "Run the step again.",
        )
    ordered = values[[columns[number] for number in range(len(columns))]].to_numpy()
    succeeded = rows[rows["mixture"] == columns[0]].set_index("fact_id")["success"].reindex(values.index)
    return _Exam(groups, ordered[:, :1] - ordered, succeeded.to_numpy(dtype=np.bool_))


def _shapley(exam: _Exam, groups: Sequence[str]) -> NDArray[np.float64]:
    """Each fact's loss divided among groups: (facts, groups), 0 for groups that did not change.

    The contribution of group i to a fact is the sum over subsets S of the other n - 1 groups of
    |S|! (n - |S| - 1)! / n! times (lost with S and i - lost with S).
    """
    n = len(exam.groups)
    numbers = np.arange(2**n)
    sizes = np.array([int(number).bit_count() for number in numbers])
    divided = np.zeros((len(exam.lost), len(groups)))
    for place, group in enumerate(exam.groups):
        without = numbers[numbers >> place & 1 == 0]
        weights = np.array([factorial(size) * factorial(n - size - 1) / factorial(n) for size in sizes[without]])
        divided[:, groups.index(group)] = (exam.lost[:, without | 1 << place] - exam.lost[:, without]) @ weights
    return divided


def _sizes(exams: Mapping[int, _Exam]) -> tuple[int, int]:
    """Facts that had succeeded, and seeds that have any."""
    counts = [int(exam.succeeded.sum()) for exam in exams.values()]
    return sum(counts), sum(count > 0 for count in counts)


def _masks(groups: set[str]) -> list[str]:
    """The masks that there is something to say about."""
    around = bool(groups & AROUND_THE_EDIT)
    return [
        mask
        for mask, frozen in MASKS.items()
        if not frozen or (frozen & groups and not groups <= frozen and (around or not frozen & AROUND_THE_EDIT))
    ]


def _tuned_in(mixture: str) -> frozenset[str]:
    """The groups that have their tuned weights in a mixture."""
    return frozenset() if mixture == NO_GROUP else frozenset(mixture.split("+"))


def _number(groups: Sequence[str], tuned: Collection[str]) -> int:
    """A subset of groups as a number, one bit a group."""
    return sum(1 << place for place, group in enumerate(groups) if group in tuned)


def _in_order(groups: Collection[str]) -> tuple[str, ...]:
    """Groups in the order of LABELS.

    Raises:
        DataError: for a group that is unknown.
    """
    unknown = sorted(set(groups) - LABELS.keys())
    if unknown:
        raise DataError(f"Unknown parameter group {unknown[0]!r}.", suggest(unknown[0], LABELS))
    return tuple(group for group in LABELS if group in groups)
