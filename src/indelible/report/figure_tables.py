"""The numbers behind every figure, as tables of text for the page and for papers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from indelible.claims.rulings import Ruling
from indelible.claims.verdict import gap_of
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import measures
from indelible.numbers.words import (
    MINUS,
    MISSING,
    Table,
    cell,
    heading,
    in_percent,
    in_points,
    percent,
    percent_with_interval,
    points,
    points_with_interval,
)
from indelible.report.drawing.style import LABELS
from indelible.report.evidence import Evidence, HeatMaps
from indelible.why.drift_summary import LABELS as DRIFTED
from indelible.why.shares import LABELS as GROUPS

READINGS = {"more": "lost more often", "less": "lost less often", "unclear": "cannot tell"}


def reading(gap: Estimate) -> str:
    """What an interval of the gap says of the edits, in three words."""
    return READINGS[{1: "more", -1: "less"}.get(gap.side, "unclear")]


def gap_table(evidence: Evidence) -> Table:
    """Edited and intrinsic retention, the gap, and what it says, per arm."""
    rows = []
    for line in evidence.summary:
        arm = str(line["arm"])
        of_arm = evidence.retention[arm]
        rows.append(
            (
                arm,
                in_percent(of_arm["retention_edited"]),
                in_percent(of_arm["retention_intrinsic"]),
                in_points(gap_of(line)),
                MISSING if line["gap"] is None else reading(gap_of(line)),
                percent(None if line["retention_edited"] is None else 1 - line["retention_edited"]),
            )
        )
    columns = ("arm", "edited kept [95%]", "intrinsic kept [95%]", "gap, points [95%]", "edits were", "flip ratio")
    return Table(columns, tuple(rows))


def sizes_table(evidence: Evidence) -> Table:
    """How much each arm rests on, and further rates."""
    shown = measures("sizes")
    columns = ("arm", "seeds", "edits", "intrinsic facts", *map(heading, shown))
    rows = [
        (
            str(arm["arm"]),
            str(arm["seeds"]),
            MISSING if arm["n_edits"] is None else str(arm["n_edits"]),
            MISSING if arm["n_intrinsic"] is None else str(arm["n_intrinsic"]),
            *(cell(arm, measure) for measure in shown),
        )
        for arm in evidence.summary
    ]
    return Table(columns, tuple(rows))


def curves_table(evidence: Evidence) -> Table:
    """Every point of every curve: one row per arm and step, one column per series."""
    series = [name for name in LABELS if any(name in curves for curves in evidence.curves.values())]
    rows = []
    for arm, curves in evidence.curves.items():
        for step in sorted({step for of_series in curves.values() for step in of_series}):
            cells = [in_percent(curves.get(name, {}).get(step, Estimate())) for name in series]
            rows.append((arm, str(step), *cells))
    return Table(("arm", "step", *(LABELS[name] for name in series)), tuple(rows))


def heat_table(maps: HeatMaps) -> Table:
    """The cells of both heat maps."""
    rows = [
        (
            editor,
            column,
            str(maps.gap.arms[editor, column]),
            percent(maps.retention.values[editor, column]),
            points(maps.gap.values[editor, column]),
        )
        for editor in maps.gap.rows
        for column in maps.gap.columns
        if (editor, column) in maps.gap.arms
    ]
    return Table(("editor", maps.factor, "arms", "edited kept", "gap, points"), tuple(rows))


def trade_off_table(evidence: Evidence) -> Table:
    """Downstream gain and retention per arm."""
    rows = [
        (
            point.arm,
            str(point.number),
            shown.objective,
            shown.figure.replace("_", " "),
            _gain(point.gain, point.gains),
            percent_with_interval(
                point.retention, *((point.interval.low, point.interval.high) if point.interval else (None, None))
            ),
            percent(point.retention_intrinsic),
        )
        for shown in evidence.trade_offs
        for point in shown.payments
    ]
    columns = (
        "arm",
        "no.",
        "objective",
        "figure",
        "gain (least to most over seeds)",
        "edited kept [95%]",
        "intrinsic kept",
    )
    return Table(columns, tuple(rows))


def shares_table(shares: pd.DataFrame) -> Table:
    """Each parameter group's share of the loss."""
    columns = ("arm", "fact_set", "group", "share", "low", "high", "of_loss")
    rows = [
        (
            str(arm),
            str(fact_set),
            group_name(str(group)),
            points_with_interval(known(share), known(low), known(high)),
            _signed_percent(known(of_loss)),
        )
        for arm, fact_set, group, share, low, high, of_loss in zip(*(shares[name] for name in columns), strict=True)
    ]
    return Table(("arm", "facts", "parameter group", "share, points of retention [95%]", "of the loss"), tuple(rows))


def drift_table(drift: pd.DataFrame) -> Table:
    """What moved under the edits."""
    rows = [
        (
            str(line["arm"]),
            DRIFTED[str(line["quantity"])],
            MISSING if (layer := known(line["layer"])) is None else f"{layer:g}",
            _cosine(*(known(line[name]) for name in ("cosine", "low", "high"))),
            _change(known(line["norm_change"])),
        )
        for line in drift.to_dict("records")
    ]
    return Table(("arm", "what was compared", "layer", "cosine [95%]", "change of the norm"), tuple(rows))


def forecast_table(forecast: pd.DataFrame) -> Table:
    """What each freeze mask would have kept."""
    rows = [
        (
            str(line["arm"]),
            str(line["mask"]),
            percent_with_interval(*(known(line[name]) for name in ("retention_edited", "low", "high"))),
            points_with_interval(*(known(line[name]) for name in ("gain", "gain_low", "gain_high"))),
            points_with_interval(*(known(line[name]) for name in ("measured_gain", "measured_low", "measured_high"))),
        )
        for line in forecast.to_dict("records")
    ]
    columns = (
        "arm",
        "mask",
        "edited kept, forecast [95%]",
        "gain, forecast, points [95%]",
        "gain when tried, points [95%]",
    )
    return Table(columns, tuple(rows))


def findings_table(ruling: Ruling) -> Table:
    """The comparisons behind a ruling."""
    rows = [
        (
            finding.comparison,
            finding.decision,
            in_points(finding.effect),
            MISSING if finding.effect.p is None else p_value(finding.effect.p),
            str(finding.effect.facts),
            str(finding.effect.seeds),
        )
        for finding in ruling.findings
    ]
    return Table(("comparison", "says", "effect, points [95%]", "p (Holm)", "facts", "seeds"), tuple(rows))


def claims_table(rulings: Sequence[Ruling]) -> Table:
    """All claims with their verdicts."""
    rows = [(ruling.sentence, ruling.decision, in_points(ruling.effect)) for ruling in rulings]
    return Table(("claim", "verdict", "mean effect, points [95%]"), tuple(rows))


def p_value(value: float) -> str:
    """A p-value as papers print it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def group_name(group: str) -> str:
    """A parameter group in words."""
    return GROUPS.get(group, group)


def _signed_percent(rate: float | None) -> str:
    """A part of a whole that can be below zero, or more than all of it."""
    return f"{MINUS}{percent(-rate)}" if rate is not None and rate < 0 else percent(rate)


def _cosine(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return MISSING
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{interval}".replace("-", MINUS)


def _change(part: float | None) -> str:
    """A change as a part of what there was; to a tenth of a percent, since little is much here, and none is "+0.0%"."""
    return MISSING if part is None else f"{round(part, 3) + 0.0:+.1%}".replace("-", MINUS)


def _gain(mean: float, seeds: Sequence[float]) -> str:
    if len(seeds) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} ({min(seeds):.3f} to {max(seeds):.3f})"


def known(value: float) -> float | None:
    """A number out of a table; None for NaN."""
    return None if pd.isna(value) else float(value)
