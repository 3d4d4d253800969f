"""How pictures look, and the two ways out: markup for a page, or a file that stands alone.

`inline_svg` keeps text as text and takes its colours from the page's own custom properties, so that it follows light
and dark; `save` is for white paper. The same figure gives the same bytes either way. Colours come from the palette of
Okabe and Ito (*Color Universal Design*, 2008), which colour-blind readers can tell apart, darkened where white paper
asks for it; every series also differs in line style, marker or fill.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from indelible.numbers.measures import rates

INK = "#5c6670"
STRONG = "#1c2126"
COLOURS = MappingProxyType(
    {
        "edited": "#c75300",
        "paraphrase": "#8f6a00",
        "intrinsic": "#0067a3",
        "control": "#5b6472",
        "kept": "#00785b",
        "series1": "#0068a4",
        "series2": "#c65300",
        "series3": "#00795c",
        "series4": "#a33f80",
        "series5": "#8e6a00",
        "series6": "#3a4ec4",
        "series7": "#4a525c",
    }
)
"""Name of a series -> its colour on white; a page defines a custom property of that name for light and dark."""
LINES: Mapping[str, Literal["-", ":", "--", "-."]] = MappingProxyType(
    {"edited": "-", "paraphrase": ":", "intrinsic": "--", "control": "-."}
)
MARKERS = MappingProxyType({"edited": "o", "paraphrase": "^", "intrinsic": "s", "control": "D"})
LABELS = MappingProxyType(
    {
        "edited": "edited facts",
        "paraphrase": "edited facts, held-out wordings",
        "intrinsic": "intrinsic facts",
        "control": "intrinsic facts, without any edit",
    }
)
POINTS_PER_INCH = 72


def look(series: str) -> dict[str, Any]:
    """Colour, line and marker of a series; grey for one that is not among ours, e.g. of a plug-in's measure."""
    line = {"color": COLOURS.get(series, INK), "linestyle": LINES.get(series, "-.")}
    return line | {"marker": MARKERS.get(series, "x")}


def label_of(series: str) -> str:
    """What a series is called: ours by `LABELS`, one of a plug-in's measure as the measure is."""
    known = {rate.series or rate.name: rate.label for rate in rates("curves")} | LABELS
    return known.get(series, series)


def in_order(series: Iterable[str]) -> list[str]:
    """Names of series without repeats, ours first and in the order of `LABELS`."""
    there = dict.fromkeys(series)
    return [*(name for name in LABELS if name in there), *(name for name in there if name not in LABELS)]


@contextmanager
def style(extra: Mapping[str, object] = MappingProxyType({})) -> Iterator[None]:
    """matplotlib's defaults with ours on top, whatever the user's own settings are."""
    ours: dict[str, object] = {
        "svg.hashsalt": "indelible",
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "font.size": 8.5,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        **extra,
    }
    with matplotlib.style.context(["default", ours]):
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write a figure on white, as PNG, SVG or PDF by the ending of ``path``; equal figures give equal bytes."""
    kind = path.suffix.lstrip(".").lower()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[kind]
    with style({"svg.fonttype": "path"}):
        figure.savefig(path, format=kind, dpi=200, facecolor="white", metadata=metadata)
    return path


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an SVG element for a page; the name begins every identifier inside, so that several figures can stand
    there, and the description is what a reader who can't see it should be told."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    # Inside HTML the element needs neither name spaces nor a size of its own.
    opening = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert opening is not None and box is not None, "matplotlib wrote an svg element without a viewBox"
    label = f'role="img" aria-label="{escape(description, quote=True)}"'
    width = float(box.group(1).split()[2]) / POINTS_PER_INCH
    svg = f'<svg {box.group()} {label} style="--inches: {width:.2f}">{svg[opening.end() :]}'
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"(font: (?:bold )?[\d.]+px) [^;\"]*", r"\1 var(--figure-font, sans-serif)", svg)
    for series, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{series}, {colour})")
    svg = svg.replace(STRONG, f"var(--ink, {STRONG})")
    svg = re.sub(r"(?m)^ +", "", svg)
    return svg.replace(INK, "currentColor")


def plain_axes(axes: Axes, *, axis: str) -> None:
    """Only what helps to read a value: a faint grid along ``axis`` ("x", "y" or "both"), no box, no ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, axis="x" if axis == "x" else "y" if axis == "y" else "both", color=INK, alpha=0.18, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def shortened(name: str, longest: int) -> str:
    """A name that cannot push the axes aside."""
    return name if len(name) <= longest else name[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
