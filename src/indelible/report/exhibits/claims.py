"""Claims put to the study in one table: the verdict, the effect as a bar, and what more it would take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.rulings import Ruling
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import Unit
from indelible.numbers.words import MISSING, UNITS, counted, in_unit, p_value, size
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Data, Fold, Grid, Group, Heading, Html, Part, Picture, Words, exhibit
from indelible.report.run import Run

MARKS = {"supported": "✓", "excluded": "✗"}
WIDE, HIGH = 132, 18
"""Of a bar, in its own units."""
MOST_SEEDS = 100
"""Of more it is said only that they are many."""
TABLE = """
<div class="box" role="region" aria-label="Claims and verdicts" tabindex="0">
<table class="claims">
<thead><tr><th scope="col">claim</th><th scope="col">verdict</th><th scope="col">effect [95%]</th><th scope="col">what more is needed</th></tr></thead>
{% for sentence, rows in claims %}
<tbody>
{% if rows | length > 1 or rows[0].family %}<tr class="whole"><th scope="rowgroup" colspan="4">{{ sentence }}</th></tr>{% endif %}
{% for row in rows %}
<tr><th scope="row">{{ row.family or sentence }}</th><td><span class="word {{ row.word }}">{{ row.mark }} {{ row.decision }}</span></td><td class="effect">{% if row.bar %}<svg viewBox="0 0 {{ wide }} {{ high }}" aria-hidden="true"><line x1="{{ row.bar.zero }}" x2="{{ row.bar.zero }}" y1="1" y2="17" class="zero"/><line x1="{{ row.bar.counts }}" x2="{{ row.bar.counts }}" y1="3" y2="15" class="counts"/>{% if row.bar.low is not none %}<line x1="{{ row.bar.low }}" x2="{{ row.bar.high }}" y1="9" y2="9" class="range {{ row.word }}"/>{% endif %}<circle cx="{{ row.bar.value }}" cy="9" r="3.6" class="dot {{ row.word }}"/></svg>{% endif %}<span>{{ row.effect }}</span></td><td class="{{ "settled" if row.needed == missing else "needed" }}">{{ row.needed }}</td></tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
"""  # noqa: E501


@exhibit("claims", place=12)
def claims(run: Run) -> Iterator[Part]:
    """Every ruling on a line, and what is behind them folded below."""
    if not run.rulings:
        return
    yield Heading("Claims", "claims")
    yield Words(
        "Effects are in the direction of the claim: right of the line speaks for it, and the dashed line is the "
        "smallest effect that counts. Bars of one unit share a scale.",
        "note",
    )
    bars = {unit: _scale([one for one in run.rulings if one.unit == unit]) for unit in UNITS}
    by_claim: dict[str, list[dict[str, Any]]] = {}
    for ruling in run.rulings:
        by_claim.setdefault(ruling.sentence, []).append(_row(ruling, bars[ruling.unit], run.same_edits))
    yield Html(TABLE, {"claims": list(by_claim.items()), "wide": WIDE, "high": HIGH, "missing": MISSING})
    behind = pd.DataFrame([line for ruling in run.rulings for line in _lines(ruling)])
    why = [(_name(one), one.why) for one in run.rulings]
    yield Fold(
        "Behind the verdicts",
        [
            Grid(pd.DataFrame(why, columns=["claim", "why"]), "Why the study says so", look="pairs"),
            Grid(_findings(run.rulings), "Comparisons behind the claims", data=behind),
        ],
        counted(sum(len(one.findings) for one in run.rulings), "comparison"),
    )
    rows = [
        (one.claim, one.family or MISSING, one.decision, _said(one, one.effect), needed(one, run.same_edits))
        for one in run.rulings
    ]
    table = pd.DataFrame(rows, columns=["claim", "arms", "verdict", "effect [95%]", "what more is needed"])
    files: list[Part] = [Grid(table, "Claims and verdicts.", "claims")]
    for unit, name in UNITS.items():
        own = [one for one in run.rulings if one.unit == unit and one.effect.value is not None]
        if own:
            files.append(Picture(partial(forest, own, unit), f"Effects behind claims, {name}.", file=f"claims-{name}"))
    yield Group(files, "files")
    yield Data("claims", behind)


def needed(ruling: Ruling, same_edits: bool = False) -> str:
    """What it would take to tell: so many seeds that the smallest effect that the design shows would be the smallest
    that counts, since its square falls as the number of facts grows; it falls faster where seeds are few, so that the
    number is the most. One seed does not say by how much others differ, so that its number is the least. Where all
    seeds have the ``same_edits``, more of them bring no facts."""
    if not ruling.decision.startswith("cannot tell"):
        return MISSING
    if ruling.decision == "cannot tell: ceiling":
        return "facts held less firmly, or more tuning: what is kept leaves no room"
    if ruling.decision == "cannot tell: dose":
        return "more tuning: it cost too little to say"
    if not ruling.findings:
        return "arms to compare"
    effect = ruling.effect
    if effect.value is None:
        return "more edits that work, and intrinsic facts of their relations held as firmly"
    if ruling.detectable is None or not effect.seeds or not ruling.smallest:
        return "more facts"
    times = (ruling.detectable / ruling.smallest) ** 2
    seeds, to_see = math.ceil(effect.seeds * times), f"to see {size(ruling.smallest, ruling.unit)}"
    if same_edits:
        many = f"over {MOST_SEEDS}" if times > MOST_SEEDS else f"about {math.ceil(times)}"
        more = f"{many} times as many edits {to_see}" if times > 1 else "a few more edits"
        return f"{more}: all seeds have the same"
    if seeds > MOST_SEEDS:
        return f"over {MOST_SEEDS} seeds like {'these' if effect.seeds > 1 else 'this'} {to_see}"
    if seeds > effect.seeds:
        return f"{'at most' if effect.seeds > 1 else 'at least'} {seeds} seeds in place of {effect.seeds} {to_see}"
    return "a few more seeds: it is near the smallest that counts"


def _row(ruling: Ruling, scale: tuple[float, float], same_edits: bool) -> dict[str, Any]:
    effect, (low, high) = ruling.effect, scale

    def place(value: float | None) -> float | None:
        return None if value is None else round(4 + (WIDE - 8) * (value - low) / (high - low), 1)

    bar = None
    if effect.value is not None:
        ends = {"low": place(effect.low), "high": place(effect.high), "counts": place(ruling.smallest)}
        bar = {"value": place(effect.value), "zero": place(0.0)} | ends
    return {
        "family": ruling.family,
        "decision": ruling.decision,
        "word": ruling.decision.partition(" ")[0],
        "mark": MARKS.get(ruling.decision, "?"),
        "effect": _said(ruling, effect),
        "needed": needed(ruling, same_edits),
        "bar": bar,
    }


def _scale(rulings: Sequence[Ruling]) -> tuple[float, float]:
    """From the least to the greatest that bars of a unit show."""
    ends = [0.0, *(one.smallest for one in rulings)]
    for one in rulings:
        ends += [end for end in (one.effect.value, one.effect.low, one.effect.high) if end is not None]
    return min(ends), max(max(ends), min(ends) + 1e-6)


def forest(rulings: Sequence[Ruling], unit: Unit) -> Figure:
    """The effects behind the rulings of a unit, in the direction of their claims."""
    blocks: dict[str, list[Dot]] = {}
    for one in rulings:
        blocks.setdefault(one.sentence, []).append(Dot(one.family, direction(one.effect), one.effect))
    label = f"effect, {UNITS[unit]}; above 0, for the claim"
    return dot_plot([Block(name, dots) for name, dots in blocks.items()], label=label, differences=unit)


def _name(ruling: Ruling) -> str:
    return f"{ruling.claim} ({ruling.family})" if ruling.family else ruling.claim


def _said(ruling: Ruling, effect: Estimate) -> str:
    """An effect with its unit, which claims do not share."""
    return MISSING if effect.value is None else f"{in_unit(effect, ruling.unit)} {UNITS[ruling.unit]}"


def _findings(rulings: Sequence[Ruling]) -> pd.DataFrame:
    rows = []
    for ruling in rulings:
        for found in ruling.findings:
            effect = found.effect
            figures = _said(ruling, effect), p_value(effect.p), str(effect.facts), str(effect.seeds)
            rows.append((ruling.claim, found.comparison, found.decision, *figures))
    return pd.DataFrame(rows, columns=["claim", "comparison", "says", "effect [95%]", "p (Holm)", "facts", "seeds"])


def _lines(ruling: Ruling) -> Iterator[dict[str, Any]]:
    """One line for the claim as a whole (comparison "all"), and one per comparison."""
    whole: dict[str, Any] = {"claim": ruling.claim, "arms": ruling.family, "comparison": "all"}
    whole |= {"decision": ruling.decision, "unit": ruling.unit}
    yield whole | ruling.effect.figures() | {"p": None, "facts": None, "seeds": None}
    for found in ruling.findings:
        yield whole | {"comparison": found.comparison, "decision": found.decision} | found.effect.figures()
