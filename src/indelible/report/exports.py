"""Figures and tables as files for papers: ``figures/*.svg`` and ``*.pdf``, ``tables/*.csv`` and ``*.tex``.

The CSV files hold plain numbers (fractions), the TeX files what a reader of a paper should see.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from indelible.claims.rulings import Ruling
from indelible.errors import StoreError
from indelible.numbers.answers import Answers
from indelible.numbers.measures import CONTROL_EDITOR
from indelible.numbers.summary import effects_table
from indelible.numbers.words import Table, headline
from indelible.report import figure_tables, report_figures
from indelible.report.drawing.heat_map import heat_map
from indelible.report.drawing.retention_curves import curve_sheet
from indelible.report.drawing.style import save
from indelible.report.drawing.trade_off import trade_off
from indelible.report.evidence import Evidence
from indelible.report.latex import latex_table
from indelible.report.transcript import PHASES

MOST_PANELS = 12
"""Panels on the sheet of curves; tables/curves.csv has the curves of all arms."""


def write_exports(folder: Path, evidence: Evidence, answers: Answers) -> None:
    """Write ``figures/`` and ``tables/`` of a study; what stood there before is replaced.

    Args:
        folder: the run folder.
        evidence: of the study.
        answers: of the study, for the table of effects.

    Raises:
        StoreError: if a file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
            figures, tables = Path(temporary) / "figures", Path(temporary) / "tables"
            figures.mkdir()
            tables.mkdir()
            for name, figure in all_figures(evidence):
                save(figure, figures / f"{name}.svg")
                figure.set_layout_engine("none")  # everything has found its place
                save(figure, figures / f"{name}.pdf")
            effects = effects_table(answers, evidence.runs)
            for name, frame in (*all_frames(evidence), ("effects", effects)):
                frame.to_csv(tables / f"{name}.csv", index=False, lineterminator="\n")
            for name, caption, table in all_tables(evidence):
                text = latex_table(table, caption=caption, label=f"tab:{name}")
                (tables / f"{name}.tex").write_text(text, encoding="utf-8", newline="\n")
            for made in (figures, tables):
                shutil.rmtree(folder / made.name, ignore_errors=True)
                made.rename(folder / made.name)
    except OSError as error:
        raise StoreError(
            f"Figures and tables in {folder} cannot be written: {error.strerror or error}.",
            "Is the folder writable, the disk full?",
        ) from error


def all_figures(evidence: Evidence) -> Iterator[tuple[str, Figure]]:
    """Every figure of the report with its file name."""
    if evidence.summary:
        yield "overview", report_figures.overview(evidence)
    curves = {arm: evidence.curves[arm] for arm in evidence.first_curves(MOST_PANELS)}
    if curves:
        yield "curves", curve_sheet(curves, last_step=evidence.last_step)
    if evidence.measured:
        yield "gap", report_figures.forest(evidence)
    if evidence.heat_maps is not None:
        yield "heat-map-retention", heat_map(evidence.heat_maps.retention, "share")
        yield "heat-map-gap", heat_map(evidence.heat_maps.gap, "difference")
    editors = list(dict.fromkeys(str(line["editor"]) for line in evidence.summary if line["editor"] != CONTROL_EDITOR))
    for shown in evidence.trade_offs:
        yield f"trade-off-{shown.objective}-{shown.figure}".replace("_", "-"), trade_off(shown, editors)
    for ruling in evidence.rulings:
        if any(finding.effect.value is not None for finding in ruling.findings):
            yield f"claim-{ruling.claim}", report_figures.findings_forest(ruling)
    if evidence.shares is not None:
        for number, arm in enumerate(report_figures.explained_arms(evidence.shares), 1):
            yield f"shares-{number}", report_figures.shares_plot(evidence.shares, arm)


def all_tables(evidence: Evidence) -> Iterator[tuple[str, str, Table]]:
    """Every table for papers: file name, caption, table."""
    yield "headline", "What each arm achieved and kept.", headline(evidence.summary)
    yield "gap", "Retention and retention gap per arm.", figure_tables.gap_table(evidence)
    yield "sizes", "Sizes and further rates per arm.", figure_tables.sizes_table(evidence)
    yield "curves", "Retention over training steps.", figure_tables.curves_table(evidence)
    if evidence.heat_maps is not None:
        caption = f"Edited retention and gap by editor and {evidence.heat_maps.factor}, means over arms."
        yield "heat-map", caption, figure_tables.heat_table(evidence.heat_maps)
    if evidence.trade_offs:
        yield "trade-off", "Downstream gain and edited retention per arm.", figure_tables.trade_off_table(evidence)
    if evidence.rulings:
        yield "claims", "Claims and verdicts.", figure_tables.claims_table(evidence.rulings)
    if evidence.shares is not None:
        yield "shares", "Share of the loss by parameter group.", figure_tables.shares_table(evidence.shares)
    if evidence.forecast is not None:
        yield "forecast", "What each mask would have kept.", figure_tables.forecast_table(evidence.forecast)
    if evidence.drift is not None:
        yield "drift", "What moved under the edits.", figure_tables.drift_table(evidence.drift)


def all_frames(evidence: Evidence) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table as plain numbers."""
    yield "summary", pd.DataFrame(evidence.summary)
    yield "retention", _retention(evidence)
    yield "curves", _curves(evidence)
    yield "facts", _facts(evidence)
    if evidence.heat_maps is not None:
        maps = evidence.heat_maps
        lines = [
            (*place, maps.gap.arms[place], maps.retention.values[place], maps.gap.values[place])
            for place in maps.gap.values
        ]
        columns = ["editor", maps.factor, "arms", "retention_edited", "gap"]
        yield "heat-map", pd.DataFrame(lines, columns=columns)
    if evidence.trade_offs:
        yield "trade-off", _trade_offs(evidence)
    if evidence.rulings:
        yield "claims", pd.DataFrame([line for ruling in evidence.rulings for line in _ruled(ruling)])
    if evidence.shares is not None:
        yield "shares", evidence.shares
    if evidence.forecast is not None:
        yield "forecast", evidence.forecast
    if evidence.drift is not None:
        yield "drift", evidence.drift


def _retention(evidence: Evidence) -> pd.DataFrame:
    lines = [
        {
            "arm": arm,
            "measure": measure,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "facts": found.facts,
            "seeds": found.seeds,
        }
        for arm, measures in evidence.retention.items()
        for measure, found in measures.items()
    ]
    return pd.DataFrame(lines)


def _curves(evidence: Evidence) -> pd.DataFrame:
    lines = [
        (arm, series, step, point.value, point.low, point.high)
        for arm, curves in evidence.curves.items()
        for series, points in curves.items()
        for step, point in points.items()
    ]
    return pd.DataFrame(lines, columns=["arm", "series", "step", "retention", "low", "high"])


def _facts(evidence: Evidence) -> pd.DataFrame:
    lines = []
    for arm, transcript in evidence.transcripts.items():
        for line in transcript:
            said = [part for answer in line.said for part in ((answer.text, answer.success) if answer else ("", None))]
            lines.append(
                (
                    arm,
                    line.seed,
                    line.copy,
                    line.fact_set,
                    line.fact_id,
                    line.prompt,
                    line.target,
                    *said,
                    line.wordings,
                    line.outcome,
                )
            )
    phases = [f"{phase}_{what}" for phase in PHASES for what in ("says", "success")]
    columns = [
        "arm",
        "seed",
        "copy",
        "fact_set",
        "fact_id",
        "prompt",
        "target",
        *phases,
        "held_out_wordings",
        "outcome",
    ]
    return pd.DataFrame(lines, columns=columns)


def _trade_offs(evidence: Evidence) -> pd.DataFrame:
    lines = [
        {
            "arm": point.arm,
            "objective": shown.objective,
            "figure": shown.figure,
            "better": shown.better,
            "gain": point.gain,
            "gain_least": min(point.gains, default=None),
            "gain_most": max(point.gains, default=None),
            "retention_edited": point.retention,
            "low": point.interval.low if point.interval else None,
            "high": point.interval.high if point.interval else None,
            "retention_intrinsic": point.retention_intrinsic,
        }
        for shown in evidence.trade_offs
        for point in shown.payments
    ]
    return pd.DataFrame(lines)


def _ruled(ruling: Ruling) -> Iterator[dict[str, object]]:
    """One line for the claim as a whole (comparison "all"), and one per comparison."""
    whole = ("all", ruling.decision, replace(ruling.effect, p=None))
    parts = ((part.comparison, part.decision, part.effect) for part in ruling.findings)
    for comparison, decision, effect in (whole, *parts):
        yield {
            "claim": ruling.claim,
            "comparison": comparison,
            "decision": decision,
            "value": effect.value,
            "low": effect.low,
            "high": effect.high,
            "p": effect.p,
            "facts": None if comparison == "all" else effect.facts,
            "seeds": None if comparison == "all" else effect.seeds,
        }
