"""The report: one HTML file with the answer first and the evidence below, to be read anywhere and mailed to anyone.

It asks nothing of the network, needs no scripts, follows the reader's light or dark setting, and escapes everything
that came from outside; the only markup taken as it is are our own figures.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from indelible.analysis.curves import CurvePoint, retention_curves
from indelible.analysis.figures import curve_panel, inline_svg, overview_of
from indelible.analysis.metrics import CONTROL_EDITOR
from indelible.analysis.summary import arm_generator, arm_names
from indelible.analysis.tables import headline, percent
from indelible.analysis.transcript import TranscriptLine, transcript
from indelible.analysis.verdict import verdict
from indelible.errors import StoreError

LARGEST_TRANSCRIPT = 400
"""Facts listed per arm; the page says how many there were, and the tidy table has them all."""

CURVE_DRAWS = 2_000
OVERVIEW_DRAWS = 10_000


@dataclass(frozen=True)
class Panel:
    """One arm's curves as the page shows them; no figure when the arm has none."""

    arm: str
    figure: Markup | None


@dataclass(frozen=True)
class ArmTranscript:
    """One arm's facts, the first of ``total``."""

    arm: str
    lines: Sequence[TranscriptLine]
    total: int
    note: str


@dataclass(frozen=True)
class Compared:
    """One arm as it was carried out.

    Attributes:
        arm: its name.
        editor: the editor's.
        wordings: in which each fact was edited, its own prompt included; None where nothing is edited.
        made: how the edit was made beyond the editor's name; empty where it was not recorded.
        tuned: objective and mask.
        dropped: training lines left out because they speak of a fact, with reasons; empty where not recorded.
    """

    arm: str
    editor: str
    wordings: int | None
    made: str
    tuned: str
    dropped: str


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    arm: str
    seed: int
    error: str


def write_report(
    path: Path,
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    summary: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    seed: int = 0,
) -> Path:
    """Write the report of a study; the same arguments give the same bytes.

    Args:
        path: the file to write, e.g. ``run/report.html``; its folder must exist.
        rows: tidy rows of the study.
        runs: the run table.
        summary: what `summary.summarise` returned for them.
        settings: the study's settings; nested mappings are shown with dotted names.
        provenance: versions, fingerprints, commit, hardware, times.
        seed: seed of the bootstrap bands.

    Returns:
        ``path``.

    Raises:
        StoreError: if the file cannot be written.
        DataError: if a table lacks a column.
    """
    page = render_report(rows, runs, summary, settings, provenance, seed=seed)
    try:
        _replace(path, page)
    except OSError as error:
        raise StoreError(
            f"The report {path} cannot be written: {error.strerror or error}.", "Is the folder writable, the disk full?"
        ) from error
    return path


def _replace(path: Path, page: str) -> None:
    """Write the whole page or leave what there was, and nothing else beside it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def render_report(
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    summary: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    seed: int = 0,
) -> str:
    """The page of `write_report` as text."""
    environment = Environment(
        loader=PackageLoader("indelible.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    arms = arm_names(rows, runs)
    answer = verdict(summary)
    figure = overview_of(rows, runs, draws=OVERVIEW_DRAWS, seed=seed)
    return environment.get_template("report.html.j2").render(
        verdict=answer,
        headline=headline(summary),
        summary=summary,
        overview=Markup(inline_svg(figure, "overview", "Retention per arm with 95% intervals. " + answer.answer)),
        compared=[_compared(arm, runs[runs["arm"] == arm]) for arm in arms if arm in set(runs["arm"])],
        panels=_panels(rows, arms, seed),
        transcripts=[_arm_transcript(arm, rows[rows["arm"] == arm]) for arm in arms],
        several_seeds=rows["seed"].nunique() > 1,
        failures=_failures(runs),
        settings=list(_flat(settings)),
        provenance=list(_flat(provenance)),
    )


def _panels(rows: pd.DataFrame, arms: Sequence[str], seed: int) -> list[Panel]:
    curves: dict[str, dict[str, list[CurvePoint]]] = {
        arm: retention_curves(rows[rows["arm"] == arm], draws=CURVE_DRAWS, generator=arm_generator(seed, arm))
        for arm in arms
    }
    last_step = max((points[-1].step for of_arm in curves.values() for points in of_arm.values()), default=1)
    panels = []
    for number, (arm, of_arm) in enumerate(curves.items()):
        figure = None
        if of_arm:
            ends = "; ".join(
                f"{name} {percent(points[-1].retention)} at step {points[-1].step}" for name, points in of_arm.items()
            )
            description = f"Retention over training steps in {arm}: {ends}."
            figure = Markup(inline_svg(curve_panel(of_arm, last_step=last_step), f"curve{number}", description))
        panels.append(Panel(arm, figure))
    return panels


def _arm_transcript(arm: str, rows: pd.DataFrame) -> ArmTranscript:
    lines = transcript(rows)
    tuned = sum(line.outcome != "not tuned" for line in lines)
    note = f"{sum(line.outcome == 'lost' for line in lines)} lost in tuning" if tuned else "not tuned"
    return ArmTranscript(arm, lines[:LARGEST_TRANSCRIPT], len(lines), note)


def _compared(arm: str, runs: pd.DataFrame) -> Compared:
    """What the runs of an arm were; several seeds may differ in what was dropped, and rarely in the rest."""
    first = runs.iloc[0]
    edits = bool(first["editor"] != CONTROL_EDITOR)
    made = dict.fromkeys(runs["edit"].dropna()) if edits and "edit" in runs else {}
    tuned = f"{first['objective']}, {first['tuner']}" + ("" if first["mask"] == "none" else f", frozen {first['mask']}")
    return Compared(
        arm=arm,
        editor=str(first["editor"]),
        wordings=1 + int(first["paraphrases"]) if edits else None,
        made=" / ".join(map(str, made)),
        tuned=tuned,
        dropped=_dropped(runs),
    )


def _dropped(runs: pd.DataFrame) -> str:
    """ "3 (names the subject 2, names both 1)", over all seeds."""
    if "dropped" not in runs or runs["dropped"].isna().all():
        return ""
    reasons: Counter[str] = Counter()
    for counted in runs["dropped_reasons"].dropna():
        reasons.update(json.loads(counted))
    detail = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return f"{int(runs['dropped'].sum())}" + (f" ({detail})" if detail else "")


def _failures(runs: pd.DataFrame) -> list[Failure]:
    failed = runs[runs["status"] == "failed"]
    return [
        Failure(str(arm), int(seed), "no message was recorded" if pd.isna(error) else str(error))
        for arm, seed, error in zip(failed["arm"], failed["seed"], failed["error"], strict=True)
    ]


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, text); lists of plain values on one line, lists of mappings numbered from 1."""
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            if any(isinstance(item, Mapping) for item in value):
                yield from _flat({str(number): item for number, item in enumerate(value, 1)}, f"{name}.")
            else:
                yield name, ", ".join(map(str, value)) or "none"
        else:
            yield name, "none" if value is None or value == {} else str(value)
