"""Edits against intrinsic facts: the extra loss at equal start, the lead in what was kept, and what else was left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.verdict import of_line
from indelible.numbers.measures import MEASURES, measures
from indelible.numbers.words import MISSING, UNITS, cell, figure, heading
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Data, Fold, Grid, Group, Heading, Part, Picture, Words, exhibit, numbers
from indelible.report.exhibits.answer import short
from indelible.report.run import Run

FEWEST_GROUPED = 7
"""Fewer arms than this stand under no headings in the forest: their names say enough."""
SIDES = {0: "unclear", 1: "ahead", -1: "behind"}
"""Of a lead: the style of its dot."""


@exhibit("gap", place=20)
def gap(run: Run) -> Iterator[Part]:
    """Forests of extra losses at equal start and of leads, what was kept, and how much each arm rests on."""
    if run.measured:
        yield Heading("Edits against intrinsic facts", "equal-start")
        yield Words(
            "Left, by how many nats of log-odds more fine-tuning took from edits than from intrinsic facts that were "
            "held as firmly, of the same relations, in own and held-out wordings: above zero, edits lose more. Right, "
            "the edits kept less the intrinsic facts kept, in points: below zero, edits failed more often. What is "
            "held firmly can lose much and still succeed, and then nothing of that shows in what is kept. A triangle "
            "marks an interval that excludes zero."
        )
        pictures = []
        if any(line["excess_loss"] is not None for line in run.measured):
            about = f"Extra loss of edits at equal start per arm with 95% intervals. {run.verdict.answer}"
            name = "Extra loss of edits at equal start"
            pictures.append(Picture(partial(forest, run, "excess_loss"), about, name, "extra-loss"))
        about = f"Edits kept less intrinsic facts kept per arm with 95% intervals. {run.verdict.detail}"
        pictures.append(
            Picture(partial(forest, run, "lead"), about, "Edits kept \N{MINUS SIGN} intrinsic kept", "lead")
        )
        yield Group(pictures, "pair")
    kept = "What fine-tuning took and left, in the same words for both sets of facts."
    yield numbers(_beside(run), kept, "kept", "What was taken and left, in numbers", _retention(run))
    yield from _left_out(run)
    yield numbers(_sizes(run), "Sizes and further rates per arm.", "sizes", "Sizes and further rates")
    yield Data("retention", _retention(run))


def forest(run: Run, measure: str) -> Figure:
    """A difference between edits and intrinsic facts in every arm with its interval, grouped by editor where there are
    many; what speaks against edits has their colour."""
    grouped, unit = len(run.measured) >= FEWEST_GROUPED and len(run.editors) > 1, MEASURES.get(measure).unit
    names = short([str(line["arm"]) for line in run.measured])
    blocks: dict[str, list[Dot]] = {}
    for line, arm in zip(run.measured, names, strict=True):
        editor = str(line["editor"])
        # Under the heading of its editor "memit, text, none" is "text, none".
        label = arm.removeprefix(editor).lstrip(", -") or arm if grouped else arm
        found = of_line(line, measure)
        missing = "too few with a counterpart" if found.value is None else ""
        look = direction(found) if unit == "nats" else SIDES[found.side]
        blocks.setdefault(editor if grouped else "", []).append(Dot(label, look, found, missing))
    plot = [Block(heading, dots) for heading, dots in blocks.items()]
    side = "below 0, edits failed more often" if unit == "share" else "above 0, edits lost more"
    label = f"{UNITS[unit]}; {side}"
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
