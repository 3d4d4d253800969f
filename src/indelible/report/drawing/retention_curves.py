"""Retention over training: one panel per arm, alone or many on a sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from indelible.report.drawing.style import COLOURS, INK, in_order, label_of, look, plain_axes, shortened, style

BANDS = ("edited", "intrinsic")
"""More bands on top of each other cannot be read; the tables give the intervals of all curves."""
LONGEST_TITLE = 44
ACROSS, DOWN, FOOT = 2.5, 1.95, 0.75
"""Inches of a panel on a sheet, and of the step axis's name and the key."""
MOST_TICKS = 5


@dataclass(frozen=True)
class Axis:
    """What points are drawn over: a column of theirs, under a name, up to a value that panels share; ``by_ratio`` on a
    logarithmic scale, on which 0 has a place of its own before the others; ``falling`` with lower values on the right.
    """

    column: str
    name: str
    by_ratio: bool = False
    falling: bool = False
    end: float | None = None

    def until(self, end: float) -> Self:
        """The same axis, up to there."""
        return replace(self, end=float(end))


def curve_panel(curves: pd.DataFrame, axis: Axis) -> Figure:
    """One arm's retention curves (series, the axis's column, retention, low, high) with pointwise bands."""
    with style():
        figure = Figure(figsize=(3.3, 2.2))
        axes = figure.add_axes((0.14, 0.18, 0.83, 0.78))
        _draw(axes, curves, axis)
        axes.set_xlabel(axis.name)
    return figure


def curve_sheet(curves: pd.DataFrame, arms: Mapping[str, Axis]) -> Figure:
    """The curves (with the column arm) of arms, each over its axis, on one sheet, three or four abreast, with one key
    for all; the axis's name stands once where all have the same."""
    abreast = min(len(arms), 3 if len(arms) <= 12 else 4)
    names = list(dict.fromkeys(axis.name for axis in arms.values()))
    down = DOWN if len(names) == 1 else DOWN + 0.2
    shown = in_order(curves.loc[curves["arm"].isin(list(arms)), "series"])
    foot = FOOT if abreast > 1 else FOOT + 0.15 * (len(shown) - 2)
    width, height = abreast * ACROSS, -(-len(arms) // abreast) * down + foot
    with style():
        figure = Figure(figsize=(width, height))
        for place, (arm, axis) in enumerate(arms.items()):
            left = (place % abreast * ACROSS + 0.42) / width
            bottom = (height - foot - (place // abreast + 1) * down + down - 1.43) / height
            axes = figure.add_axes((left, bottom, 2.0 / width, 1.35 / height))
            _draw(axes, curves[curves["arm"] == arm], axis)
            axes.tick_params(labelsize=7)
            axes.set_title(shortened(arm, LONGEST_TITLE), fontsize=7.5, color=INK, loc="left", parse_math=False)
            if len(names) > 1:
                axes.set_xlabel(axis.name, fontsize=7)
        figure.legend(
            [Line2D([], [], markersize=3, lw=1.6, **look(name)) for name in shown],
            [label_of(name) for name in shown],
            loc="upper left",
            ncols=min(len(shown), (1, 2, 4, 4)[abreast - 1]),
            frameon=False,
            fontsize=8,
            labelcolor=INK,
        )
        if len(names) == 1:
            figure.text(0.5, 0.12 / height, names[0], ha="center", color=INK, fontsize=8.5)
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, axis: Axis) -> None:
    at = curves[axis.column].astype("float64")
    if axis.by_ratio:
        at = _by_ratio(axes, at)
    for name, points in curves.assign(at=at).groupby("series", sort=False):
        series = str(name)
        axes.plot(points["at"], points["retention"], lw=1.6, markersize=3, clip_on=False, **look(series))
        if series in BANDS:
            low, high = (points[end].astype("float64").fillna(points["retention"]) for end in ("low", "high"))
            axes.fill_between(points["at"], low, high, color=COLOURS[series], alpha=0.14, linewidth=0)
    if axis.end is not None:
        axes.set_xlim(axes.get_xlim()[0] if axis.by_ratio else 0, axis.end * (1.15 if axis.by_ratio else 1.02))
    if axis.falling:
        axes.invert_xaxis()
    axes.set_ylim(0, 1.03)
    if not axis.by_ratio:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=MOST_TICKS, integer=axis.column == "step"))
    plain_axes(axes, axis="y")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _by_ratio(axes: Axes, at: pd.Series[float]) -> pd.Series[float]:
    """A logarithmic axis with the doses as its ticks; where each point stands, 0 before the first dose."""
    doses = sorted(set(at[at > 0]))
    before = doses[0] / (doses[1] / doses[0] if len(doses) > 1 else 4)
    ticks = [before, *doses[:: -(-len(doses) // MOST_TICKS)]]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: "0" if tick <= before else in_short(tick)))
    return at.where(at > 0, before)


def in_short(tokens: float) -> str:
    """A number of tokens in a few letters: 500, 2k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{letter}"
    return f"{tokens:.3g}"
