"""A run folder: its tables read, its claims judged, and everything that is made of them written beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from indelible.claims.claim import Claim, built_in_claims, check_names
from indelible.claims.judge import judge
from indelible.documents import from_json, from_yaml
from indelible.errors import ConfigError, StoreError
from indelible.files import damaged, read_text, whole_file
from indelible.numbers.answers import Answers
from indelible.report.comparison import render_comparison
from indelible.report.page import write_page
from indelible.report.report import write_report
from indelible.report.results import read_results, seal_results
from indelible.report.run import Run
from indelible.validation import validated

REPORT = "report.html"


def read_run(folder: Path) -> Run:
    """The tables, settings and provenance of a finished run, under the folder's name; a StoreError if there is none, or
    it is damaged (`results.read_results`)."""
    missing = [name for name in ("facts.parquet", "runs.parquet", "config.yaml") if not (folder / name).is_file()]
    if missing:
        what = f"{folder} holds no finished study: {missing[0]} is missing."
        raise StoreError(
            what if folder.is_dir() else f"There is no run folder {str(folder)!r}.",
            "Run `indelible study` first, or give a folder that it wrote.",
        )
    tables = read_results(folder)
    rows, runs = tables.pop("facts"), tables.pop("runs")
    if "copy" not in rows:  # of a run that is older than copies
        rows["copy"] = 0
    for table in (rows, runs):
        if "protect" not in table:  # than protections
            table["protect"] = "none"
    provenance = _mapping(recorded) if (recorded := folder / "provenance.json").exists() else {}
    return Run(
        name=folder.resolve().name,
        answers=Answers(rows, runs),
        runs=runs,
        settings=_mapping(folder / "config.yaml"),
        predicted=provenance.pop("predicted", {}),
        provenance=provenance,
        tables=tables,
    )


def _mapping(path: Path) -> dict[str, Any]:
    """What a file of YAML or JSON says; a StoreError where it is damaged."""
    text = read_text(path, "file of a run", StoreError)
    try:
        found = from_json(text) if path.suffix == ".json" else from_yaml(text, str(path), ConfigError)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise damaged(path)
    return found


def report_on(folder: Path, claims: Sequence[Claim] = (), *, run: Run | None = None) -> Run:
    """Judge claims on a finished run, beside the built-in ones and the study's own; write summary.json, claims.json,
    report.html, figures/, tables/, and last the hashes of all. Where it is given, ``run`` takes the place of the tables
    in the folder.

    Raises:
        StoreError: the folder holds no finished run, or cannot be written.
        ConfigError: a claim of the study's own that this version cannot read.
    """
    run = run or read_run(folder)
    kept = run.settings.get("claims") or ()
    own = tuple(validated(Claim, entry, f"claims.{place} of {folder}") for place, entry in enumerate(kept))
    mine = (*own, *claims)
    check_names(mine)
    rulings = judge((*built_in_claims(), *mine), run.answers, run.runs, always={claim.name for claim in mine})
    judged = replace(run, rulings=rulings)
    with whole_file(folder / "summary.json") as path:
        path.write_text(json.dumps(judged.summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with whole_file(folder / "claims.json") as path:
        path.write_text(json.dumps([ruling.record() for ruling in rulings], indent=2) + "\n", encoding="utf-8")
    write_report(folder / REPORT, judged)
    seal_results(folder)
    return judged


def write_comparison(first: Path, second: Path, page: Path) -> Path:
    """Compare two run folders on one page, in a folder that must exist.

    Raises:
        StoreError: a folder holds no finished run, or the page cannot be written.
    """
    return write_page(page, render_comparison(read_run(first), read_run(second)))
