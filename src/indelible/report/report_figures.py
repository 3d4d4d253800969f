"""The figures of a study's report, drawn from its evidence; the page and the files for papers share them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.rulings import Ruling
from indelible.claims.verdict import gap_of
from indelible.numbers.estimate import Estimate
from indelible.numbers.words import in_percent, in_points
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.evidence import Evidence, Summary
from indelible.report.figure_tables import group_name, known

FEWEST_GROUPED = 7
"""Fewer arms than this stand under no headings in the forest: their names say enough."""


def overview(evidence: Evidence) -> Figure:
    """Edited and intrinsic retention of every arm, as dots with 95% intervals."""
    blocks = []
    for line in evidence.summary:
        arm = str(line["arm"])
        dots = []
        for style, key in (("edited", "retention_edited"), ("intrinsic", "retention_intrinsic")):
            if line[key] is not None:
                found = evidence.retention[arm][key]
                dots.append(Dot("", style, line[key], found.interval, in_percent(found)))
        blocks.append(Block(arm, dots or [Dot("", "unclear", None, None, "not measured after tuning")]))
    label = "retained after fine-tuning, of what had succeeded before"
    return dot_plot(blocks, label=label, key=("edited", "intrinsic"))


def forest(evidence: Evidence) -> Figure:
    """The gap of every arm with its interval, grouped by editor where there are many, and their mean below."""
    measured = evidence.measured
    if len(measured) < FEWEST_GROUPED:
        blocks = [Block("", [_gap_dot(str(arm["arm"]), arm) for arm in measured])]
    else:
        editors = list(dict.fromkeys(str(arm["editor"]) for arm in measured))
        blocks = [
            Block(
                editor,
                [_gap_dot(_without(str(arm["arm"]), editor), arm) for arm in measured if arm["editor"] == editor],
            )
            for editor in editors
        ]
    average = evidence.average
    if average is not None and average.gap.value is not None:
        mean = Dot("mean over arms", "mean", average.gap.value, average.gap.interval, in_points(average.gap))
        blocks.append(Block("", [mean]))
    return dot_plot(blocks, label="gap, points; above 0, edits were lost more often", differences=True)


def findings_forest(ruling: Ruling) -> Figure:
    """The effects behind a ruling, in the direction of its claim."""
    blocks = [
        Block(
            finding.comparison,
            [
                Dot(
                    "",
                    direction(finding.effect),
                    finding.effect.value,
                    finding.effect.interval,
                    in_points(finding.effect),
                )
            ],
        )
        for finding in ruling.findings
    ]
    if len(blocks) > 1:
        mean = Dot("", "mean", ruling.effect.value, ruling.effect.interval, in_points(ruling.effect))
        blocks.append(Block("mean over comparisons", [mean]))
    return dot_plot(blocks, label="effect, points; above 0, for the claim", differences=True)


def shares_plot(shares: pd.DataFrame, arm: str) -> Figure:
    """Each parameter group's share of what one arm lost, for edited and for intrinsic facts."""
    own = shares[shares["arm"] == arm]
    found: dict[str, list[Dot]] = {}
    columns = ("group", "fact_set", "share", "low", "high")
    for group, fact_set, share, low, high in zip(*(own[name] for name in columns), strict=True):
        part = Estimate(known(share), known(low), known(high))
        text = "none had succeeded" if part.value is None else in_points(part)
        found.setdefault(str(group), []).append(Dot("", str(fact_set), part.value, part.interval, text))
    blocks = [Block(group_name(group), dots) for group, dots in found.items()]
    label = "points of retention lost"
    return dot_plot(blocks, label=label, differences=True, key=("edited", "intrinsic"))


def explained_arms(shares: pd.DataFrame) -> Sequence[str]:
    """Arms that have shares, in order."""
    return [str(arm) for arm in shares["arm"].drop_duplicates()]


def _gap_dot(label: str, arm: Summary) -> Dot:
    gap = gap_of(arm)
    return Dot(label, direction(gap), gap.value, gap.interval, in_points(gap))


def _without(arm: str, editor: str) -> str:
    """An arm's name under the heading of its editor: "memit, text, none" is "text, none" there."""
    rest = arm.removeprefix(editor).lstrip(", -")
    return rest or arm
