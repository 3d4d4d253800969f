"""Who pays what: what tuning gained downstream against how many edits it left.

Only arms that are judged by the same figure share a panel: a fall in loss and a rise in accuracy have no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from indelible.report.drawing.style import COLOURS, INK, plain_axes, shortened, style

MARKERS = "osD^v<>PX*ph"
SERIES = tuple(name for name in COLOURS if name.startswith("series"))
MOST_NUMBERED = 16
"""Numbers beside more points than this would hide them."""


def trade_off(arms: pd.DataFrame, axis: str, editors: Sequence[str]) -> Figure:
    """Draw one panel of arms (lines of `trade_offs.gains`): the editor gives colour and marker, hollow marks are of
    tuners other than "full". All editors of the study are given, so that each looks the same in every panel."""
    looks: dict[str, dict[str, Any]] = {
        editor: {"color": COLOURS[SERIES[place % len(SERIES)]], "marker": MARKERS[place % len(MARKERS)]}
        for place, editor in enumerate(editors)
        if editor in set(arms["editor"])
    }
    lines = -(-len(looks) // 3)
    height = 2.55 + 0.17 * lines
    with style():
        figure = Figure(figsize=(3.4, height))
        axes = figure.add_axes((0.18, (0.43 + 0.17 * lines) / height, 0.78, 2.03 / height))
        for arm in arms.to_dict("records"):
            look, at = looks[arm["editor"]], (arm["gain"], arm["retention_edited"])
            bar: dict[str, Any] = {"color": look["color"], "linewidth": 1.1, "alpha": 0.65}
            axes.plot([arm["gain"]] * 2, [arm["low"], arm["high"]], **bar)
            if arm["gain_least"] != arm["gain_most"]:
                axes.plot([arm["gain_least"], arm["gain_most"]], [arm["retention_edited"]] * 2, **bar)
            fill = look["color"] if arm["tuner"] == "full" else "none"
            axes.plot(*at, **look, markersize=5.5, markerfacecolor=fill, markeredgewidth=1.3, clip_on=False)
            if len(arms) <= MOST_NUMBERED:
                axes.annotate(
                    str(arm["number"]), at, xytext=(4, 3), textcoords="offset points", fontsize=6.5, color=INK
                )
        axes.margins(x=0.1)
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(axis)
        axes.set_ylabel("edited facts kept")
        plain_axes(axes, axis="both")
        for editor, look in looks.items():
            axes.plot([], [], linestyle="none", **look, markersize=5, label=shortened(editor, 14))
        figure.legend(
            loc="lower center", ncols=3, frameon=False, fontsize=7.5, labelcolor=INK, handletextpad=0.2, borderpad=0.1
        )
    return figure
