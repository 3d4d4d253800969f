"""Who pays what: what tuning gained downstream against how many edits it left.

Only arms that are judged by the same figure share a panel: a fall in loss and a rise in accuracy have no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from indelible.numbers.estimate import Estimate
from indelible.report.drawing.style import COLOURS, INK, plain_axes, shortened, style

MARKERS = "osD^v<>PX*ph"
SERIES = tuple(name for name in COLOURS if name.startswith("series"))
MOST_NUMBERED = 16
"""Numbers beside more points than this would hide them."""


@dataclass(frozen=True)
class Payment:
    """One arm in the plane.

    Attributes:
        number: of the arm, in the table beside the figure.
        arm: its name.
        editor: which gives its colour and marker.
        adapter: whether a tuner other than full fine-tuning was used; drawn hollow.
        gain: downstream improvement in the figure's own unit, up is better; mean over seeds.
        gains: of each seed.
        retention: of edited facts, as a fraction.
        interval: of the retention.
        retention_intrinsic: for the table.
    """

    number: int
    arm: str
    editor: str
    adapter: bool
    gain: float
    gains: tuple[float, ...]
    retention: float
    interval: Estimate | None
    retention_intrinsic: float | None


@dataclass(frozen=True)
class TradeOff:
    """Arms that share a scale.

    Attributes:
        objective: what was learned.
        figure: name of the downstream figure.
        better: "lower" or "higher".
        payments: the arms.
    """

    objective: str
    figure: str
    better: str
    payments: Sequence[Payment]

    @property
    def axis(self) -> str:
        """What the gain is, in words."""
        return f"downstream gain: {'fall' if self.better == 'lower' else 'rise'} in {self.figure.replace('_', ' ')}"


def trade_off(shown: TradeOff, editors: Sequence[str]) -> Figure:
    """Draw one panel.

    Args:
        shown: what to draw.
        editors: all editors of the study, so that each looks the same in every panel.
    """
    present = [editor for editor in editors if any(point.editor == editor for point in shown.payments)]
    lines = -(-len(present) // 3)
    height = 2.55 + 0.17 * lines
    with style():
        figure = Figure(figsize=(3.4, height))
        axes = figure.add_axes((0.18, (0.43 + 0.17 * lines) / height, 0.78, 2.03 / height))
        for point in shown.payments:
            place = list(editors).index(point.editor)
            colour = COLOURS[SERIES[place % len(SERIES)]]
            if point.interval is not None and point.interval.low is not None and point.interval.high is not None:
                ends = [point.interval.low, point.interval.high]
                axes.plot([point.gain, point.gain], ends, color=colour, linewidth=1.1, alpha=0.65)
            if len(point.gains) > 1:
                ends = [min(point.gains), max(point.gains)]
                axes.plot(ends, [point.retention] * 2, color=colour, linewidth=1.1, alpha=0.65)
            axes.plot(
                [point.gain],
                [point.retention],
                color=colour,
                marker=MARKERS[place % len(MARKERS)],
                markersize=5.5,
                markerfacecolor="none" if point.adapter else colour,
                markeredgewidth=1.3,
                clip_on=False,
            )
            if len(shown.payments) <= MOST_NUMBERED:
                axes.annotate(
                    str(point.number),
                    (point.gain, point.retention),
                    xytext=(4, 3),
                    textcoords="offset points",
                    fontsize=6.5,
                    color=INK,
                )
        axes.margins(x=0.1)
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(shown.axis)
        axes.set_ylabel("edited facts kept")
        plain_axes(axes, axis="both")
        for editor in present:
            place = list(editors).index(editor)
            axes.plot(
                [],
                [],
                linestyle="none",
                marker=MARKERS[place % len(MARKERS)],
                color=COLOURS[SERIES[place % len(SERIES)]],
                markersize=5,
                label=shortened(editor, 14),
            )
        figure.legend(
            loc="lower center", ncols=3, frameon=False, fontsize=7.5, labelcolor=INK, handletextpad=0.2, borderpad=0.1
        )
    return figure
