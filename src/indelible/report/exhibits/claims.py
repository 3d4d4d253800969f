"""Claims put to the study, each with its verdict and the comparisons behind it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.rulings import Ruling
from indelible.numbers.words import counted, in_points, p_value
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Data, FilesOnly, Fold, Grid, Group, Heading, Html, Part, Picture, exhibit
from indelible.report.run import Run

MARKS = {"supported": "✓", "contradicted": "✗", "undecided": "?"}
RULING = """
<p><span class="word {{ ruling.decision }}">{{ mark }} {{ ruling.decision }}</span> <span class="said">{{ ruling.sentence }}</span></p>
<p>{{ ruling.why }}</p>
"""  # noqa: E501


@exhibit("claims", place=10)
def claims(run: Run) -> Iterator[Part]:
    """Every ruling, its findings folded below it."""
    if not run.rulings:
        return
    yield Heading("Claims", "claims")
    yield from map(_claim, run.rulings)
    rows = [(ruling.sentence, ruling.decision, in_points(ruling.effect)) for ruling in run.rulings]
    table = pd.DataFrame(rows, columns=["claim", "verdict", "mean effect, points [95%]"])
    yield FilesOnly([Grid(table, "Claims and verdicts.", "claims")])
    columns = ["claim", "comparison", "decision", "value", "low", "high", "p", "facts", "seeds"]
    yield Data("claims", pd.DataFrame([line for ruling in run.rulings for line in _lines(ruling)], columns=columns))


def _claim(ruling: Ruling) -> Part:
    said = Html(RULING, {"ruling": ruling, "mark": MARKS[ruling.decision]})
    if not ruling.findings:
        return Group([said], "claim")
    behind: list[Part] = []
    if any(finding.effect.value is not None for finding in ruling.findings):
        description = f"Effects behind the claim: {ruling.sentence} {ruling.why}"
        behind.append(Picture(partial(forest, ruling), description, file=f"claim-{ruling.claim}"))
    behind.append(Grid(_findings(ruling), f"Comparisons behind the claim {ruling.claim}"))
    note = f"mean effect {in_points(ruling.effect)} points; {ruling.smallest * 100:g} would count"
    return Group([said, Fold(counted(len(ruling.findings), "comparison"), behind, note)], "claim")


def forest(ruling: Ruling) -> Figure:
    """The effects behind a ruling, in the direction of its claim."""
    blocks = []
    for found in ruling.findings:
        dot = Dot("", direction(found.effect), in_points(found.effect), found.effect)
        blocks.append(Block(found.comparison, [dot]))
    if len(blocks) > 1:
        mean = Dot("", "mean", in_points(ruling.effect), ruling.effect)
        blocks.append(Block("mean over comparisons", [mean]))
    return dot_plot(blocks, label="effect, points; above 0, for the claim", differences=True)


def _findings(ruling: Ruling) -> pd.DataFrame:
    rows = [
        (
            found.comparison,
            found.decision,
            in_points(found.effect),
            p_value(found.effect.p),
            str(found.effect.facts),
            str(found.effect.seeds),
        )
        for found in ruling.findings
    ]
    return pd.DataFrame(rows, columns=["comparison", "says", "effect, points [95%]", "p (Holm)", "facts", "seeds"])


def _lines(ruling: Ruling) -> Iterator[tuple[object, ...]]:
    """One line for the claim as a whole (comparison "all"), and one per comparison."""
    whole = ruling.effect
    yield ruling.claim, "all", ruling.decision, whole.value, whole.low, whole.high, None, None, None
    for found in ruling.findings:
        one = found.effect
        figures = one.value, one.low, one.high, one.p, one.facts, one.seeds
        yield ruling.claim, found.comparison, found.decision, *figures
