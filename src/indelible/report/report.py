"""The report: one HTML file with the answer first and the evidence below, to be read anywhere and mailed to anyone.

It asks nothing of the network, can be read in full without its script (which only searches and sorts the facts), and
follows the reader's light or dark setting. Beside it go the same figures and tables as files for papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from indelible.claims.rulings import Ruling
from indelible.claims.verdict import with_unlike_criteria
from indelible.numbers.answers import Answers
from indelible.numbers.measures import CONTROL_EDITOR
from indelible.numbers.words import Table, headline, in_points, percent
from indelible.report import figure_tables, report_figures
from indelible.report.drawing.heat_map import heat_map
from indelible.report.drawing.retention_curves import curve_panel
from indelible.report.drawing.style import LABELS, inline_svg
from indelible.report.drawing.trade_off import trade_off
from indelible.report.evidence import Evidence, gather
from indelible.report.exports import write_exports
from indelible.report.page import Picture, render, write_page
from indelible.report.run_details import compared, failures, rerun
from indelible.report.settings_lines import flat
from indelible.report.transcript import TranscriptLine

LARGEST_TRANSCRIPT = 400
"""Facts listed per arm, at most; the page says how many there were."""
LARGEST_PAGE = 3_000
"""Facts listed on the page, at most, shared among its arms."""
FEWEST_LISTED = 20
MOST_PANELS = 9
"""Curves that stand open on the page; the rest can be unfolded."""
MOST_IN_OVERVIEW = 8
MOST_OPEN = 12
"""Arms in a table that stands open."""
MOST_SETTINGS = 60
MOST_EXPLAINED = 4
MARKS = {"supported": "✓", "contradicted": "✗", "undecided": "?"}


@dataclass(frozen=True)
class Claim:
    """A ruling as the page shows it."""

    ruling: Ruling
    mark: str
    effect: str
    smallest: str
    figure: Markup | None
    findings: Table


@dataclass(frozen=True)
class ArmTranscript:
    """One arm's facts, the first of ``total``."""

    arm: str
    lines: Sequence[TranscriptLine]
    total: int
    note: str


def write_report(
    path: Path,
    rows: pd.DataFrame | Answers,
    runs: pd.DataFrame,
    summary: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    rulings: Sequence[Ruling] = (),
    shares: pd.DataFrame | None = None,
    forecast: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
    seed: int = 0,
) -> Path:
    """Write the report of a study, and its figures and tables beside it; the same arguments give the same bytes.

    Args:
        path: the file to write, e.g. ``run/report.html``; its folder must exist. ``figures/`` and ``tables/`` in that
            folder are replaced.
        rows: tidy rows of the study, or the answers made of them.
        runs: the run table.
        summary: what `summary.summarise` returned for them.
        settings: the study's settings; nested mappings are shown with dotted names.
        provenance: versions, fingerprints, commit, hardware, times.
        rulings: on the claims put to the study.
        shares: what `shares.shares` returned for its explained arms, if any.
        forecast: what `forecasts.with_outcomes` returned for them, if any.
        drift: what `drift.drift_summary` returned for them, if any.
        seed: seed of the bootstrap.

    Returns:
        ``path``.

    Raises:
        StoreError: if a file cannot be written.
        DataError: if a table lacks a column.
    """
    answers = Answers.of(rows, seed=seed)
    evidence = gather(answers, runs, summary, rulings=rulings, shares=shares, forecast=forecast, drift=drift)
    write_page(path, _page(evidence, settings, provenance))
    write_exports(path.parent, evidence, answers)
    return path


def render_report(
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    summary: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    rulings: Sequence[Ruling] = (),
    shares: pd.DataFrame | None = None,
    forecast: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
    seed: int = 0,
) -> str:
    """The page of `write_report` as text."""
    evidence = gather(
        Answers.of(rows, seed=seed), runs, summary, rulings=rulings, shares=shares, forecast=forecast, drift=drift
    )
    return _page(evidence, settings, provenance)


def _page(evidence: Evidence, settings: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    runs, arms = evidence.runs, evidence.arms
    as_published = bool(settings.get("as_published"))
    return render(
        "report.html.j2",
        {
            "most_open": MOST_OPEN,
            "most_settings": MOST_SETTINGS,
            "verdict": with_unlike_criteria(evidence.answer) if as_published else evidence.answer,
            "as_published": as_published,
            "overview": _overview(evidence),
            "claims": [_claim(number, ruling) for number, ruling in enumerate(evidence.rulings)],
            "series": [name for name in LABELS if any(name in curves for curves in evidence.curves.values())],
            "labels": LABELS,
            "panels": _panels(evidence),
            "curves_table": figure_tables.curves_table(evidence),
            "forest": _forest(evidence),
            "gap_table": figure_tables.gap_table(evidence),
            "headline": headline(evidence.summary),
            "sizes": figure_tables.sizes_table(evidence),
            "heat_maps": evidence.heat_maps,
            "heat_pictures": _heat_pictures(evidence),
            "heat_table": figure_tables.heat_table(evidence.heat_maps) if evidence.heat_maps else None,
            "trade_offs": _trade_offs(evidence),
            "trade_off_table": figure_tables.trade_off_table(evidence),
            "explained": _explained(evidence),
            "shares_table": None if evidence.shares is None else figure_tables.shares_table(evidence.shares),
            "forecast_table": None if evidence.forecast is None else figure_tables.forecast_table(evidence.forecast),
            "drift_table": None if evidence.drift is None else figure_tables.drift_table(evidence.drift),
            "transcripts": [_arm_transcript(evidence, arm) for arm in arms],
            "several_seeds": runs["seed"].nunique() > 1,
            "several_copies": any(line.copy for lines in evidence.transcripts.values() for line in lines),
            "compared": [compared(arm, runs[runs["arm"] == arm]) for arm in arms if arm in set(runs["arm"])],
            "failures": failures(runs),
            "settings": list(flat(settings)),
            "settings_yaml": yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True),
            "provenance": list(flat(provenance)),
            "rerun": rerun(settings, provenance),
        },
    )


def _overview(evidence: Evidence) -> Markup | None:
    """The answer as a picture, where there are few enough arms to take in at a glance."""
    if not 0 < len(evidence.summary) <= MOST_IN_OVERVIEW:
        return None
    description = "Retention per arm with 95% intervals. " + evidence.answer.answer
    return Markup(inline_svg(report_figures.overview(evidence), "overview", description))


def _claim(number: int, ruling: Ruling) -> Claim:
    figure = None
    if any(finding.effect.value is not None for finding in ruling.findings):
        description = f"Effects behind the claim: {ruling.sentence} {ruling.why}"
        figure = Markup(inline_svg(report_figures.findings_forest(ruling), f"claim{number}", description))
    return Claim(
        ruling=ruling,
        mark=MARKS[ruling.decision],
        effect=in_points(ruling.effect),
        smallest=f"{ruling.smallest * 100:g}",
        figure=figure,
        findings=figure_tables.findings_table(ruling),
    )


@dataclass(frozen=True)
class _Panels:
    """Curves that stand open, and the others by editor."""

    shown: Sequence[Picture]
    folded: Mapping[str, Sequence[Picture]]
    without: Sequence[str]


def _panels(evidence: Evidence) -> _Panels:
    with_curves = [arm for arm in evidence.arms if evidence.curves[arm]]
    first = evidence.first_curves(MOST_PANELS)
    shown: list[Picture] = []
    folded: dict[str, list[Picture]] = {}
    editors = {str(line["arm"]): str(line["editor"]) for line in evidence.summary}
    for number, arm in enumerate(with_curves):
        curves = evidence.curves[arm]
        ends = "; ".join(
            f"{LABELS[name]} {percent(points[max(points)].value)} at step {max(points)}"
            for name, points in curves.items()
        )
        description = f"Retention over training steps in {arm}: {ends}."
        figure = curve_panel(curves, last_step=evidence.last_step)
        picture = Picture(arm, Markup(inline_svg(figure, f"curve{number}", description)))
        (shown if arm in first else folded.setdefault(editors[arm], [])).append(picture)
    return _Panels(shown, folded, [arm for arm in evidence.arms if not evidence.curves[arm]])


def _forest(evidence: Evidence) -> Markup | None:
    if not evidence.measured:
        return None
    description = "Retention gap per arm with 95% intervals. " + (evidence.answer.detail or evidence.answer.answer)
    return Markup(inline_svg(report_figures.forest(evidence), "forest", description))


def _heat_pictures(evidence: Evidence) -> list[Picture]:
    maps = evidence.heat_maps
    if maps is None:
        return []
    kinds = (
        ("edited facts kept", "retention", heat_map(maps.retention, "share")),
        ("gap, in points", "gap", heat_map(maps.gap, "difference")),
    )
    return [
        Picture(
            title,
            Markup(
                inline_svg(figure, f"heat-{name}", f"{title}, by editor and {maps.factor}; the table has the values.")
            ),
        )
        for title, name, figure in kinds
    ]


def _trade_offs(evidence: Evidence) -> list[Picture]:
    editors = list(dict.fromkeys(str(line["editor"]) for line in evidence.summary if line["editor"] != CONTROL_EDITOR))
    pictures = []
    for number, shown in enumerate(evidence.trade_offs):
        description = f"Edited retention against {shown.axis}, {len(shown.payments)} arms; the table has the values."
        markup = Markup(inline_svg(trade_off(shown, editors), f"gain{number}", description))
        pictures.append(Picture(shown.objective, markup))
    return pictures


def _explained(evidence: Evidence) -> list[Picture]:
    if evidence.shares is None:
        return []
    pictures = []
    for number, arm in enumerate(report_figures.explained_arms(evidence.shares)[:MOST_EXPLAINED]):
        figure = report_figures.shares_plot(evidence.shares, arm)
        description = f"Share of the loss by parameter group in {arm}; the table has the values."
        pictures.append(Picture(arm, Markup(inline_svg(figure, f"shares{number}", description))))
    return pictures


def _arm_transcript(evidence: Evidence, arm: str) -> ArmTranscript:
    lines = evidence.transcripts[arm]
    tuned = sum(line.outcome != "not tuned" for line in lines)
    note = f"{sum(line.outcome == 'lost' for line in lines)} lost in tuning" if tuned else "not tuned"
    largest = min(LARGEST_TRANSCRIPT, max(FEWEST_LISTED, LARGEST_PAGE // len(evidence.arms)))
    return ArmTranscript(arm, _first(lines, largest), len(lines), note)


def _first(lines: Sequence[TranscriptLine], largest: int) -> Sequence[TranscriptLine]:
    """At most ``largest`` lines, with room for both sets."""
    if len(lines) <= largest:
        return lines
    edited = [line for line in lines if line.fact_set == "edited"]
    others = [line for line in lines if line.fact_set != "edited"]
    room = max(largest // 2, largest - len(others))
    return [*edited[:room], *others[: largest - min(room, len(edited))]]
