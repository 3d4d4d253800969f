"""Claims put to the study, each with its verdict and the comparisons behind it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.rulings import Ruling
from indelible.numbers.estimate import Estimate
from indelible.numbers.words import MISSING, UNITS, counted, in_unit, p_value, size
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Data, Fold, Grid, Group, Heading, Html, Part, Picture, exhibit
from indelible.report.run import Run

MARKS = {"supported": "✓", "excluded": "✗"}
RULING = """
<p><span class="word {{ ruling.decision.partition(' ')[0] }}">{{ mark }} {{ ruling.decision }}</span> <span class="said">{{ ruling.sentence }}{% if ruling.family %} ({{ ruling.family }}){% endif %}</span></p>
<p>{{ ruling.why }}</p>
"""  # noqa: E501


@exhibit("claims", place=10)
def claims(run: Run) -> Iterator[Part]:
    """Every ruling, its findings folded below it."""
    if not run.rulings:
        return
    yield Heading("Claims", "claims")
    yield from map(_claim, run.rulings)
    rows = [(one.sentence, one.family or MISSING, one.decision, _said(one, one.effect)) for one in run.rulings]
    table = pd.DataFrame(rows, columns=["claim", "arms", "verdict", "effect [95%]"])
    yield Group([Grid(table, "Claims and verdicts.", "claims")], "files")
    yield Data("claims", pd.DataFrame([line for ruling in run.rulings for line in _lines(ruling)]))


def _claim(ruling: Ruling) -> Part:
    said = Html(RULING, {"ruling": ruling, "mark": MARKS.get(ruling.decision, "?")})
    if not ruling.findings:
        return Group([said], "claim")
    behind: list[Part] = []
    if any(finding.effect.value is not None for finding in ruling.findings):
        description = f"Effects behind the claim: {ruling.sentence} {ruling.why}"
        behind.append(Picture(partial(forest, ruling), description, file=f"claim-{ruling.name}"))
    behind.append(Grid(_findings(ruling), f"Comparisons behind the claim {ruling.name}"))
    note = f"effect {_said(ruling, ruling.effect)}; {size(ruling.smallest, ruling.unit)} would count"
    return Group([said, Fold(counted(len(ruling.findings), "comparison"), behind, note)], "claim")


def forest(ruling: Ruling) -> Figure:
    """The effects behind a ruling, in the direction of its claim."""
    findings = ruling.findings
    blocks = [Block(found.comparison, [Dot("", direction(found.effect), found.effect)]) for found in findings]
    if len(blocks) > 1:
        blocks.append(Block("mean over comparisons", [Dot("", "mean", ruling.effect)]))
    return dot_plot(blocks, label=f"effect, {UNITS[ruling.unit]}; above 0, for the claim", differences=ruling.unit)


def _said(ruling: Ruling, effect: Estimate) -> str:
    """An effect with its unit, which claims do not share."""
    return MISSING if effect.value is None else f"{in_unit(effect, ruling.unit)} {UNITS[ruling.unit]}"


def _findings(ruling: Ruling) -> pd.DataFrame:
    rows = []
    for found in ruling.findings:
        effect = found.effect
        figures = _said(ruling, effect), p_value(effect.p), str(effect.facts), str(effect.seeds)
        rows.append((found.comparison, found.decision, *figures))
    return pd.DataFrame(rows, columns=["comparison", "says", "effect [95%]", "p (Holm)", "facts", "seeds"])


def _lines(ruling: Ruling) -> Iterator[dict[str, Any]]:
    """One line for the claim as a whole (comparison "all"), and one per comparison."""
    whole: dict[str, Any] = {"claim": ruling.claim, "arms": ruling.family, "comparison": "all"}
    whole |= {"decision": ruling.decision, "unit": ruling.unit}
    yield whole | ruling.effect.figures() | {"p": None, "facts": None, "seeds": None}
    for found in ruling.findings:
        yield whole | {"comparison": found.comparison, "decision": found.decision} | found.effect.figures()
