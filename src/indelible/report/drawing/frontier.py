"""What protections keep and cost: panels of points with the Pareto front of each.

Rows of panels share what is paid (the held-out figure, the time of a step), columns what is kept; in all of them up and
to the right is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from indelible.report.drawing.style import COLOURS, INK, POINTS_PER_INCH, STRONG, plain_axes, shortened, style
from indelible.report.drawing.trade_off import MARKERS, MOST_NUMBERED, SERIES

WIDE, HIGH = 2.0, 1.62
"""Inches of a panel."""
LEFT, BETWEEN, STEP, TOP = 0.62, 0.2, 2.16, 0.25
ABREAST = 4
"""Names in a line of the key."""
LONGEST_NAME = 26
PLACES = ((6, 6), (6, -6), (-6, 6), (-6, -6), (9, 0), (-9, 0), (0, 9), (0, -9))
"""Where a number can stand beside its point, in points of print, the best first."""
TAKEN_FOR = 15.0
"""As bad as covering so much, in square points: a number that is nearer to another point."""
UNREAD = 1000.0
"""Likewise, one that lies on another number."""


@dataclass(frozen=True)
class Cost:
    """What is paid: a column of the points, with the columns ``_least`` and ``_most`` over seeds beside it; the name of
    its axis; whether less is better; whether its values are changes (else ratios)."""

    column: str
    name: str
    falling: bool
    changes: bool


def on_front(right: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(points,): whether no other point is as far right and as far up, and farther in one; not what is not known."""
    known = np.isfinite(right) & np.isfinite(up)
    as_good = (right[:, None] <= right) & (up[:, None] <= up)
    better = as_good & ((right[:, None] < right) | (up[:, None] < up)) & known
    return known & ~better.any(axis=1)


def frontier(points: pd.DataFrame, kept: Mapping[str, str], costs: Sequence[Cost]) -> Figure:
    """Draw one family of arms.

    Args:
        points: a line for each arm, with ``number``, ``protection`` ("" for none; the same for all its doses, in whose
            order they stand), the columns of ``costs``, and for each column of ``kept`` also ``_low`` and ``_high``.
        kept: column -> what a column of panels is called.
        costs: a row of panels each.
    """
    names = list(dict.fromkeys(points["protection"]))
    coloured = [name for name in names if name]
    looks: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[SERIES[place % len(SERIES)]], "marker": MARKERS[place % len(MARKERS)], "markersize": 5}
        for place, name in enumerate(coloured)
    } | {"": {"color": STRONG, "marker": "*", "markersize": 9}}
    lines = -(-(len(names) + 1) // ABREAST)
    width = LEFT + len(kept) * (WIDE + BETWEEN)
    height = TOP + len(costs) * STEP + 0.2 * lines
    ends = points[[f"{column}_low" for column in kept]].to_numpy(np.float64)
    lowest = max(0.0, np.floor(10 * np.nanmin(ends) - 0.5) / 10) if np.isfinite(ends).any() else 0.0
    with style():
        figure = Figure(figsize=(width, height))
        for row, cost in enumerate(costs):
            bottom = height - TOP - row * STEP - HIGH
            for place, (column, title) in enumerate(kept.items()):
                left = LEFT + place * (WIDE + BETWEEN)
                axes = figure.add_axes((left / width, bottom / height, WIDE / width, HIGH / height))
                _panel(axes, points, column, cost, looks, lowest, figure.dpi)
                if row == 0:
                    axes.set_title(title, fontsize=8.5, color=INK)
                if place:
                    axes.tick_params(labelleft=False)
                else:
                    axes.set_ylabel("kept", labelpad=2)
            figure.text(
                (LEFT + (len(kept) * (WIDE + BETWEEN) - BETWEEN) / 2) / width,
                (bottom - 0.38) / height,
                cost.name,
                ha="center",
                color=INK,
                fontsize=8.5,
            )
        handles = [Line2D([], [], linestyle="none", **looks[name]) for name in names]
        labels = [shortened(name, LONGEST_NAME) or "unprotected" for name in names]
        figure.legend(
            [*handles, Line2D([], [], color=INK, lw=1, alpha=0.7)],
            [*labels, "Pareto front"],
            loc="lower center",
            ncols=min(len(names) + 1, ABREAST),
            frameon=False,
            fontsize=7.5,
            labelcolor=INK,
            handletextpad=0.3,
            borderpad=0.1,
        )
    return figure


def _panel(
    axes: Axes,
    points: pd.DataFrame,
    column: str,
    cost: Cost,
    looks: Mapping[str, dict[str, Any]],
    lowest: float,
    dpi: float,
) -> None:
    known = points.dropna(subset=[column, cost.column]).astype({column: "float64", cost.column: "float64"})
    ends = {
        f"{column}_{end}": known[f"{column}_{end}"].astype("float64").fillna(known[column]) for end in ("low", "high")
    }
    known = known.assign(**ends)
    for name, doses in known.groupby("protection", sort=False):
        axes.plot(doses[cost.column], doses[column], color=looks[str(name)]["color"], lw=0.8, alpha=0.45, zorder=1)
    for arm in known.to_dict("records"):
        look, at = looks[arm["protection"]], (arm[cost.column], arm[column])
        bar: dict[str, Any] = {"color": look["color"], "linewidth": 0.9, "alpha": 0.5, "zorder": 2}
        axes.plot([at[0]] * 2, [arm[f"{column}_low"], arm[f"{column}_high"]], **bar)
        axes.plot([arm[f"{cost.column}_least"], arm[f"{cost.column}_most"]], [at[1]] * 2, **bar)
        axes.plot(*at, linestyle="none", zorder=3, clip_on=False, **look)
    axes.margins(x=0.12)
    axes.set_ylim(lowest, 1.03)
    if cost.falling:
        axes.invert_xaxis()
    if len(known):
        _draw_front(axes, known, column, cost)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: _change(tick) if cost.changes else f"{tick:.4g}"))
    plain_axes(axes, axis="both")
    axes.tick_params(labelsize=7.5)
    if len(points) <= MOST_NUMBERED:
        _number(axes, known, column, cost, dpi)


def _draw_front(axes: Axes, known: pd.DataFrame, column: str, cost: Cost) -> None:
    """As steps around all that a point of the front beats, which is what is left of it and below."""
    right = known[cost.column].to_numpy(np.float64) * (-1 if cost.falling else 1)
    best = known[on_front(right, known[column].to_numpy(np.float64))].sort_values(cost.column, ascending=cost.falling)
    ends, floor = axes.get_xlim(), axes.get_ylim()[0]
    across, up = np.repeat(best[cost.column], 2), np.repeat(best[column], 2)
    axes.plot([*across, ends[0]], [floor, *up], color=INK, lw=1, alpha=0.7, zorder=0)
    axes.set_xlim(ends)


def _number(axes: Axes, known: pd.DataFrame, column: str, cost: Cost, dpi: float) -> None:
    """Put each arm's number where it covers least of points, intervals and other numbers, and is not taken for that of
    another."""
    arms, low, high = (
        axes.transData.transform(known[[cost.column, end]].to_numpy(np.float64)) * POINTS_PER_INCH / dpi
        for end in (column, f"{column}_low", f"{column}_high")
    )
    taken = [_box(at, 7.0, 7.0) for at in arms]
    taken += [_box((one + other) / 2, 2.0, other[1] - one[1]) for one, other in zip(low, high, strict=True)]
    numbers: list[NDArray[np.float64]] = []
    for (number, *arm), at in zip(known[["number", cost.column, column]].to_numpy(), arms, strict=True):
        boxes = [_box(at + place, 4.2 * len(f"{number:g}"), 6.5) for place in np.array(PLACES)]
        nearer = [
            (np.linalg.norm(arms - box.mean(0), axis=1) < np.linalg.norm(at - box.mean(0))).any() for box in boxes
        ]
        covered = [sum(_shared(box, other) for other in taken) for box in boxes]
        unread = [any(_shared(box, other) for other in numbers) for box in boxes]
        place = int(np.argmin(np.array(covered) + TAKEN_FOR * np.array(nearer) + UNREAD * np.array(unread)))
        numbers.append(boxes[place])
        about: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
        axes.annotate(f"{number:g}", (arm[0], arm[1]), xytext=PLACES[place], fontsize=6.5, color=INK, **about)


def _box(centre: NDArray[np.float64], width: float, height: float) -> NDArray[np.float64]:
    """(2, 2): its lower left and its upper right corner."""
    half = np.array([width, height]) / 2
    return np.array([centre - half, centre + half])


def _shared(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The area that two boxes share."""
    return float(np.prod(np.clip(np.minimum(box[1], other[1]) - np.maximum(box[0], other[0]), 0, None)))


def _change(share: float) -> str:
    """A change in percent as a tick."""
    return f"{share * 100:+.3g}%".replace("-", "\N{MINUS SIGN}") if abs(share) > 1e-9 else "0"
