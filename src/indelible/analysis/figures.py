"""The pictures: retention curves per arm, and an overview of edited against intrinsic retention with intervals.

Two ways out of here. `inline_svg` gives markup for a page: transparent, text kept as text, colours taken from the
page's own custom properties so that it follows light and dark. `save` writes a file that stands alone. The same data
gives the same bytes either way. Colours are those of Okabe and Ito (*Color Universal Design*, 2008), which colour-blind
readers can tell apart, and every series also differs in line style or marker.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import MappingProxyType

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from indelible.analysis.curves import CurvePoint
from indelible.analysis.summary import Estimate, arm_generator, arm_names, estimates
from indelible.analysis.tables import percent

INK = "#5c6670"
COLOURS = MappingProxyType({"edited": "#d55e00", "paraphrase": "#b8860b", "intrinsic": "#0072b2"})
LINES = MappingProxyType({"edited": "-", "paraphrase": ":", "intrinsic": "--"})
MARKERS = MappingProxyType({"edited": "o", "paraphrase": "^", "intrinsic": "s"})
LABELS = MappingProxyType(
    {"edited": "edited facts", "paraphrase": "edited facts, held-out wordings", "intrinsic": "intrinsic facts"}
)
LONGEST_NAME = 46
RETENTIONS = MappingProxyType({"edited": "retention_edited", "intrinsic": "retention_intrinsic"})


def curve_panel(curves: Mapping[str, Sequence[CurvePoint]], *, last_step: int) -> Figure:
    """One arm's retention curves with pointwise bands.

    Args:
        curves: what `curves.retention_curves` returned.
        last_step: where the step axis ends, the same for all panels that stand side by side.
    """
    with _style():
        figure = Figure(figsize=(3.3, 2.25), layout="constrained")
        axes = figure.subplots()
        for name, points in curves.items():
            steps = [point.step for point in points]
            axes.plot(
                steps,
                [point.retention for point in points],
                color=COLOURS[name],
                linestyle=LINES[name],
                linewidth=1.6,
                marker=MARKERS[name],
                markersize=3,
            )
            lows = [point.retention if point.low is None else point.low for point in points]
            highs = [point.retention if point.high is None else point.high for point in points]
            if name != "paraphrase":  # three bands on top of each other cannot be read
                axes.fill_between(steps, lows, highs, color=COLOURS[name], alpha=0.14, linewidth=0)
        axes.set_xlim(0, last_step * 1.02)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("training steps")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        _plain_axes(axes, axis="y")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def overview(arms: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Edited and intrinsic retention of every arm, as dots with 95% intervals.

    Args:
        arms: name of the arm -> its estimates of retention_edited and retention_intrinsic.
    """
    with _style():
        shown = {
            arm: [name for name, key in RETENTIONS.items() if estimate[key].value is not None]
            for arm, estimate in arms.items()
        }
        # One unit of height is one line of text: a heading per arm, a line per rate, and a little air.
        height = sum(1.5 + max(len(names), 1) for names in shown.values())
        figure = Figure(figsize=(4.5, 0.75 + 0.185 * height), layout="constrained")
        axes = figure.subplots()
        at = height
        for arm, names in shown.items():
            at -= 0.75
            axes.text(0.006, at, _short(arm), color=INK, fontsize=9, fontweight="bold", va="center", parse_math=False)
            for name in names:
                at -= 1
                _dot(axes, at, name, arms[arm][RETENTIONS[name]])
            if not names:
                at -= 1
                axes.text(0.006, at, "not measured after tuning", color=INK, fontsize=8, va="center")
            at -= 0.75
        for name in RETENTIONS:
            axes.plot(
                [], [], color=COLOURS[name], marker=MARKERS[name], markersize=5, linewidth=1.8, label=LABELS[name]
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, height)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("retained after fine-tuning, of what had succeeded before")
        _plain_axes(axes, axis="x")
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def overview_of(rows: pd.DataFrame, runs: pd.DataFrame, *, draws: int = 10_000, seed: int = 0) -> Figure:
    """The overview of a study, straight from its tables."""
    return overview(
        {
            arm: estimates(
                rows[rows["arm"] == arm],
                tuple(RETENTIONS.values()),
                draws=draws,
                generator=arm_generator(seed, arm),
            )
            for arm in arm_names(rows, runs)
        }
    )


def save(figure: Figure, path: Path) -> Path:
    """Write a figure on white, as PNG or SVG by the ending of ``path``; equal figures give equal bytes."""
    kind = path.suffix.lstrip(".").lower()
    with _style({"svg.fonttype": "path"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(path, format=kind, dpi=200, facecolor="white", metadata=metadata)
    return path


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an svg element for a page that defines ``--edited``, ``--paraphrase`` and ``--intrinsic``.

    Args:
        figure: the figure.
        name: unique within the page; identifiers inside the picture are prefixed with it.
        description: what a reader who cannot see it should be told.
    """
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    # Inside HTML the element needs neither name spaces nor a size of its own.
    opening = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert opening is not None and box is not None, "matplotlib wrote an svg element without a viewBox"
    label = f'role="img" aria-label="{escape(description, quote=True)}"'
    svg = f"<svg {box.group()} {label}>{svg[opening.end() :]}"
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"(font: (?:bold )?[\d.]+px) [^;\"]*", r"\1 var(--figure-font, sans-serif)", svg)
    for series, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{series}, {colour})")
    return svg.replace(INK, "currentColor")


@contextmanager
def _style(extra: Mapping[str, object] = MappingProxyType({})) -> Iterator[None]:
    """matplotlib's defaults with ours on top, whatever the user's own settings are."""
    ours: dict[str, object] = {
        "svg.hashsalt": "indelible",
        "svg.fonttype": "none",
        "font.size": 8.5,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        **extra,
    }
    with matplotlib.style.context(["default", ours]):
        yield


def _short(name: str) -> str:
    """A name that cannot push the axes aside."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _plain_axes(axes: Axes, *, axis: str) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, axis="x" if axis == "x" else "y", color=INK, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _dot(axes: Axes, height: float, name: str, estimate: Estimate) -> None:
    """One rate with its interval, and both as text at the right end."""
    colour = COLOURS[name]
    if estimate.value is None:
        return
    label = percent(estimate.value)
    if estimate.interval is not None:
        low, high = estimate.interval.low, estimate.interval.high
        axes.plot(np.array([low, high]), np.array([height, height]), color=colour, linewidth=1.8, solid_capstyle="butt")
        label += f" [{percent(low)}, {percent(high)}]"
    axes.plot([estimate.value], [height], color=colour, marker=MARKERS[name], markersize=5, clip_on=False)
    axes.annotate(label, (1, height), xytext=(8, 0), textcoords="offset points", color=colour, fontsize=8, va="center")
