"""Edits against intrinsic facts: the extra loss at equal start, the gap in what was kept, the figures of every arm."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.verdict import of_line
from indelible.numbers.measures import MEASURES, Rate, measures
from indelible.numbers.words import MISSING, UNITS, cell, figure, heading, headline, in_percent, in_points, percent
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Data, Fold, Grid, Heading, Part, Picture, Words, exhibit, numbers
from indelible.report.run import Run

MOST_OPEN = 12
"""Arms in a table that stands open."""
FEWEST_GROUPED = 7
"""Fewer arms than this stand under no headings in the forest: their names say enough."""
READINGS = {"more": "more often", "less": "less often", "unclear": "cannot tell"}


@exhibit("gap", place=30)
def gap(run: Run) -> Iterator[Part]:
    """A forest of extra losses at equal start and one of gaps, what was kept, the headline table, and how much each arm
    rests on."""
    yield Heading("Edits against intrinsic facts at equal start", "equal-start")
    yield Words(
        "By how many nats of log-odds more fine-tuning took from edits than from intrinsic facts that were held as "
        "firmly, of the same relations, in own and held-out wordings. Above zero, edits lose more. What is held firmly "
        "can lose much and still succeed, and then nothing of that shows in what is kept."
    )
    if any(line["excess_loss"] is not None for line in run.measured):
        about = f"Extra loss of edits at equal start per arm with 95% intervals. {run.verdict.answer}"
        yield Picture(lambda: forest(run, "excess_loss"), about, file="extra-loss")
    yield Grid(_beside(run), "What fine-tuning took and left, in the same words for both sets of facts.", "kept")
    yield from _left_out(run)
    yield Heading("The gap", "gap")
    yield Words(
        "Intrinsic retention minus edited retention, in percentage points. Above zero, edits failed more often than "
        "facts that the model had from pre-training. A triangle marks an interval that excludes zero."
    )
    if run.measured:
        said = run.verdict.detail or run.verdict.answer
        yield Picture(lambda: forest(run, "gap"), f"Retention gap per arm with 95% intervals. {said}", file="gap")
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


def forest(run: Run, measure: str) -> Figure:
    """A difference between edits and intrinsic facts in every arm with its interval, grouped by editor where there are
    many."""
    grouped = len(run.measured) >= FEWEST_GROUPED
    blocks: dict[str, list[Dot]] = {}
    for line in run.measured:
        arm, editor = str(line["arm"]), str(line["editor"])
        # Under the heading of its editor "memit, text, none" is "text, none".
        label = arm.removeprefix(editor).lstrip(", -") or arm if grouped else arm
        found = of_line(line, measure)
        missing = "too few with a counterpart" if found.value is None else ""
        blocks.setdefault(editor if grouped else "", []).append(Dot(label, direction(found), found, missing))
    plot = [Block(heading, dots) for heading, dots in blocks.items()]
    unit = MEASURES.get(measure).unit
    more = "failed more often" if unit == "share" else "lost more"
    label = f"{MEASURES.get(measure).label}, {UNITS[unit]}; above 0, edits {more}"
    return dot_plot(plot, label=label, differences=unit)


def _beside(run: Run) -> pd.DataFrame:
    """What shows beside the extra loss, one line per arm."""
    shown = measures("kept")
    rows = [
        {"arm": arm} | {heading(one): figure(run.estimate(arm, one.name), one) for one in shown} for arm in run.arms
    ]
    return pd.DataFrame(rows)


def _left_out(run: Run) -> Iterator[Part]:
    """How many edits the comparison at equal start says nothing about, and which."""
    found = {str(line["arm"]): run.answers.without_counterpart(str(line["arm"])) for line in run.measured}
    rows = [(arm, str(questions), ", ".join(facts)) for arm, (questions, facts) in found.items() if questions]
    if rows:
        table = pd.DataFrame(rows, columns=["arm", "questions", "edits"])
        said = "Edits without a counterpart that was held as firmly, left out at equal start"
        yield Fold(said, [Grid(table, f"{said}.", look="pinned")])


def _gaps(run: Run) -> pd.DataFrame:
    rows = [
        {
            "arm": line["arm"],
            "edited kept [95%]": in_percent(run.estimate(line["arm"], "retention_edited")),
            "intrinsic kept [95%]": in_percent(run.estimate(line["arm"], "retention_intrinsic")),
            "gap, points [95%]": in_points(found := of_line(line, "gap")),
            "edits fail": MISSING if found.value is None else READINGS[direction(found)],
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
