"""Retention over training steps: one panel per arm, alone or many on a sheet."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from indelible.numbers.curves import Curve
from indelible.report.drawing.style import (
    COLOURS,
    INK,
    LABELS,
    LINES,
    MARKERS,
    plain_axes,
    shortened,
    style,
)

BANDS = ("edited", "intrinsic")
"""More bands on top of each other cannot be read; the tables give the intervals of all curves."""
PANEL = (3.3, 2.2)
LONGEST_TITLE = 44
Curves = Mapping[str, Curve]


def curve_panel(curves: Curves, *, last_step: int) -> Figure:
    """One arm's retention curves with pointwise bands.

    Args:
        curves: series (edited, paraphrase, intrinsic, control) -> points.
        last_step: where the step axis ends, the same for all panels that stand side by side.
    """
    with style():
        figure = Figure(figsize=PANEL)
        axes = figure.add_axes((0.14, 0.18, 0.83, 0.78))
        _draw(axes, curves, last_step)
        axes.set_xlabel("training steps")
    return figure


def curve_sheet(arms: Mapping[str, Curves], *, last_step: int) -> Figure:
    """The curves of many arms on one sheet, three or four abreast, with one key for all.

    Args:
        arms: name of the arm -> its curves, at least one.
        last_step: where all step axes end.
    """
    abreast = min(len(arms), 3 if len(arms) <= 12 else 4)
    down = -(-len(arms) // abreast)
    width, height = abreast * 2.5, down * 1.95 + 0.75
    with style():
        figure = Figure(figsize=(width, height))
        for place, (arm, curves) in enumerate(arms.items()):
            across, below = place % abreast, place // abreast
            left = (across * 2.5 + 0.42) / width
            bottom = (height - 0.75 - (below + 1) * 1.95 + 0.52) / height
            axes = figure.add_axes((left, bottom, 2.0 / width, 1.35 / height))
            _draw(axes, curves, last_step)
            axes.tick_params(labelsize=7)
            axes.set_title(shortened(arm, LONGEST_TITLE), fontsize=7.5, color=INK, loc="left", parse_math=False)
        shown = [name for name in LABELS if any(name in curves for curves in arms.values())]
        keys = [
            Line2D([], [], color=COLOURS[name], linestyle=LINES[name], marker=MARKERS[name], markersize=3, lw=1.6)
            for name in shown
        ]
        figure.legend(
            keys,
            [LABELS[name] for name in shown],
            loc="upper left",
            ncols=min(len(shown), 2 if abreast < 3 else 4),
            frameon=False,
            fontsize=8,
            labelcolor=INK,
        )
        figure.text(0.5, 0.12 / height, "training steps", ha="center", color=INK, fontsize=8.5)
    return figure


def _draw(axes: Axes, curves: Curves, last_step: int) -> None:
    for name, points in curves.items():
        steps, shares = list(points), [point.value or 0.0 for point in points.values()]
        axes.plot(
            steps,
            shares,
            color=COLOURS[name],
            linestyle=LINES[name],
            linewidth=1.6,
            marker=MARKERS[name],
            markersize=3,
            clip_on=False,
        )
        if name in BANDS:
            pairs = list(zip(shares, points.values(), strict=True))
            lows = [share if point.low is None else point.low for share, point in pairs]
            highs = [share if point.high is None else point.high for share, point in pairs]
            axes.fill_between(steps, lows, highs, color=COLOURS[name], alpha=0.14, linewidth=0)
    axes.set_xlim(0, last_step * 1.02)
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    plain_axes(axes, axis="y")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
