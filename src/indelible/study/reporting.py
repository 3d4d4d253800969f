"""The report of a run folder: of a finished study from its tables, of one under way from the steps that are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indelible.claims.claim import Claim
from indelible.documents import read_json
from indelible.errors import StoreError
from indelible.numbers.answers import Answers
from indelible.numbers.words import counted
from indelible.report.folder import read_run, report_on
from indelible.report.run import Run
from indelible.study.design.settings import StudyConfig, changed_settings
from indelible.study.run.store import Store
from indelible.validation import validated


def report_run(folder: Path, claims: Sequence[Claim] = ()) -> Run:
    """Judge claims and write the report of a run folder (`report.folder.report_on`); where the study is not finished,
    of what is, which it says.

    Raises:
        StoreError: the folder holds no study, or nothing of it is finished, or it cannot be written.
        IndelibleError: of a study that is not finished, whatever it names that cannot be had.
    """
    under_way = (folder / "config.yaml").is_file() and not (folder / "facts.parquet").is_file()
    run = _of_finished_steps(folder) if under_way else read_run(folder)
    return report_on(folder, claims, run=replace(run, changed=changed_settings(run.settings)))


def _of_finished_steps(folder: Path) -> Run:
    from indelible.study.run.run import plan_of
    from indelible.study.run.tables import collect_rows, collect_runs

    store = Store(folder)
    settings = store.config_dict() or {}
    plan = plan_of(validated(StudyConfig, settings, str(folder)), store)
    rows = collect_rows(store, plan)
    if rows.empty:
        raise StoreError(
            f"{folder} holds no finished study, and no exam of this version's software is finished in it.",
            "Wait for the first exam, or use the version that runs the study.",
        )
    runs = collect_runs(store, plan, _failures(folder))
    runs["error"] = runs["error"].fillna("not done yet").where(runs["status"] != "done")
    done, seeds = sum(map(store.has, plan.steps)), int((runs["status"] == "done").sum())
    said = (
        f"This study is not finished: {done} of {counted(len(plan.steps), 'step')} are done, and {seeds} of "
        f"{counted(len(runs), 'run')} of an arm and a seed. All that follows is of these."
    )
    return Run(folder.resolve().name, Answers(rows, runs), runs, settings, unfinished=said)


def _failures(folder: Path) -> dict[str, str]:
    """What went wrong, by the key of the step."""
    found = [read_json(path, "record of a failure", StoreError) for path in sorted((folder / "failed").glob("*.json"))]
    return {str(one["key"]): str(one["error"]) for one in found}
