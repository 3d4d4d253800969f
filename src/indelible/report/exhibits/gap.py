"""The gap between what was kept of intrinsic facts and of edits, and the figures of every arm."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.verdict import gap_of
from indelible.numbers.measures import Rate, measures
from indelible.numbers.words import MISSING, cell, heading, headline, in_percent, in_points, percent
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Data, Fold, Grid, Heading, Part, Picture, Words, exhibit, numbers
from indelible.report.run import Run

MOST_OPEN = 12
"""Arms in a table that stands open."""
FEWEST_GROUPED = 7
"""Fewer arms than this stand under no headings in the forest: their names say enough."""
READINGS = {"more": "lost more often", "less": "lost less often", "unclear": "cannot tell"}


@exhibit("gap", place=30)
def gap(run: Run) -> Iterator[Part]:
    """A forest of gaps and its numbers, the headline table, and how much each arm rests on."""
    yield Heading("The gap", "gap")
    yield Words(
        "Intrinsic retention minus edited retention, in percentage points. Above zero, edits were lost more often than "
        "facts that the model had from pre-training. A triangle marks an interval that excludes zero."
    )
    if run.measured:
        said = run.verdict.detail or run.verdict.answer
        yield Picture(lambda: forest(run), f"Retention gap per arm with 95% intervals. {said}", file="gap")
    yield numbers(_gaps(run), "Retention and retention gap per arm.", "gap")
    columns, lines = headline(run.summary)
    table = Grid(pd.DataFrame(lines, columns=columns), "What each arm achieved and kept.", "headline")
    if len(run.summary) > MOST_OPEN:
        yield Fold("All arms", [table], look="printed")
    else:
        yield Heading("All arms", "headline", level=3)
        yield table
    early = [heading(one) for one in measures("headline") if isinstance(one, Rate) and one.hit != "tuned"]
    said = f"{', '.join(early[:-1])} and {early[-1]} are measured before tuning.".capitalize()
    yield Words(f"{said} A dash stands where a figure does not apply or was not reached.", "note")
    yield numbers(_sizes(run), "Sizes and further rates per arm.", "sizes", "Sizes and further rates")
    yield Data("summary", pd.DataFrame(run.summary))
    yield Data("retention", _retention(run))


def forest(run: Run) -> Figure:
    """The gap of every arm with its interval, grouped by editor where there are many, and their mean below."""
    grouped = len(run.measured) >= FEWEST_GROUPED
    blocks: dict[str, list[Dot]] = {}
    for line in run.measured:
        arm, editor = str(line["arm"]), str(line["editor"])
        # Under the heading of its editor "memit, text, none" is "text, none".
        label = arm.removeprefix(editor).lstrip(", -") or arm if grouped else arm
        dot = Dot(label, direction(gap_of(line)), gap_of(line))
        blocks.setdefault(editor if grouped else "", []).append(dot)
    plot = [Block(heading, dots) for heading, dots in blocks.items()]
    if run.average is not None and (mean := run.average.gap).value is not None:
        plot.append(Block("", [Dot("mean over arms", "mean", mean)]))
    return dot_plot(plot, label="gap, points; above 0, edits were lost more often", differences=True)


def _gaps(run: Run) -> pd.DataFrame:
    rows = [
        {
            "arm": line["arm"],
            "edited kept [95%]": in_percent(run.estimate(line["arm"], "retention_edited")),
            "intrinsic kept [95%]": in_percent(run.estimate(line["arm"], "retention_intrinsic")),
            "gap, points [95%]": in_points(found := gap_of(line)),
            "edits were": MISSING if found.value is None else READINGS[direction(found)],
            "flip ratio": percent(run.estimate(line["arm"], "flip_ratio").value),
        }
        for line in run.summary
    ]
    return pd.DataFrame(rows)


def _sizes(run: Run) -> pd.DataFrame:
    sizes = {"seeds": "seeds", "edits": "n_edits", "intrinsic facts": "n_intrinsic"}
    rows = [
        {"arm": line["arm"]}
        | {name: MISSING if line[key] is None else str(line[key]) for name, key in sizes.items()}
        | {heading(measure): cell(line, measure) for measure in measures("sizes")}
        for line in run.summary
    ]
    return pd.DataFrame(rows)


def _retention(run: Run) -> pd.DataFrame:
    lines = [
        {"arm": arm, "measure": measure.name} | run.estimate(arm, measure.name).figures()
        for arm in run.arms
        for measure in measures("curves")
    ]
    return pd.DataFrame(lines).drop(columns="p")
