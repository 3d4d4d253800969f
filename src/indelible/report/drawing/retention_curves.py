"""Retention over training steps: one panel per arm, alone or many on a sheet."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from indelible.report.drawing.style import COLOURS, INK, in_order, label_of, look, plain_axes, shortened, style

BANDS = ("edited", "intrinsic")
"""More bands on top of each other cannot be read; the tables give the intervals of all curves."""
LONGEST_TITLE = 44
ACROSS, DOWN, FOOT = 2.5, 1.95, 0.75
"""Inches of a panel on a sheet, and of the step axis's name and the key."""


def curve_panel(curves: pd.DataFrame, *, last_step: int) -> Figure:
    """One arm's retention curves (series, step, retention, low, high) with pointwise bands; the step axis ends at the
    last step, the same for all panels that stand side by side."""
    with style():
        figure = Figure(figsize=(3.3, 2.2))
        axes = figure.add_axes((0.14, 0.18, 0.83, 0.78))
        _draw(axes, curves, last_step)
        axes.set_xlabel("training steps")
    return figure


def curve_sheet(curves: pd.DataFrame, arms: Sequence[str], *, last_step: int) -> Figure:
    """The curves (with the column arm) of arms on one sheet, three or four abreast, with one key for all."""
    abreast = min(len(arms), 3 if len(arms) <= 12 else 4)
    width, height = abreast * ACROSS, -(-len(arms) // abreast) * DOWN + FOOT
    with style():
        figure = Figure(figsize=(width, height))
        for place, arm in enumerate(arms):
            left = (place % abreast * ACROSS + 0.42) / width
            bottom = (height - FOOT - (place // abreast + 1) * DOWN + 0.52) / height
            axes = figure.add_axes((left, bottom, 2.0 / width, 1.35 / height))
            _draw(axes, curves[curves["arm"] == arm], last_step)
            axes.tick_params(labelsize=7)
            axes.set_title(shortened(arm, LONGEST_TITLE), fontsize=7.5, color=INK, loc="left", parse_math=False)
        shown = in_order(curves.loc[curves["arm"].isin(arms), "series"])
        figure.legend(
            [Line2D([], [], markersize=3, lw=1.6, **look(name)) for name in shown],
            [label_of(name) for name in shown],
            loc="upper left",
            ncols=min(len(shown), 2 if abreast < 3 else 4),
            frameon=False,
            fontsize=8,
            labelcolor=INK,
        )
        figure.text(0.5, 0.12 / height, "training steps", ha="center", color=INK, fontsize=8.5)
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, last_step: int) -> None:
    for name, points in curves.groupby("series", sort=False):
        series = str(name)
        axes.plot(points["step"], points["retention"], lw=1.6, markersize=3, clip_on=False, **look(series))
        if series in BANDS:
            low, high = (points[end].astype("float64").fillna(points["retention"]) for end in ("low", "high"))
            axes.fill_between(points["step"], low, high, color=COLOURS[series], alpha=0.14, linewidth=0)
    axes.set_xlim(0, last_step * 1.02)
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    plain_axes(axes, axis="y")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
