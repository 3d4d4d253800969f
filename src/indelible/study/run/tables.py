"""Tables of a run, put together from the results of its steps.

Every arm gets its rows under its own name, also those that it shares with others: readers need to know of no steps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import pandas as pd

from indelible.files import remove, whole_file
from indelible.numbers.measures import FACTORS
from indelible.report.folder import read_run, report_on
from indelible.report.results import read_table, seal_results
from indelible.study.design.arms import Arm
from indelible.study.design.checks import COVARIANCE_TOKENS
from indelible.study.design.settings import changed_settings
from indelible.study.run.kept import ROWS, TUNING, read_json
from indelible.study.run.plan import ArmRun, Plan
from indelible.study.run.store import Store

# A run's tables, each with the file that an explaining step writes of it.
_EXPLANATIONS = {"shares.parquet": "mixtures.parquet", "drift.parquet": "drift.parquet"}
RUN_COLUMNS = (
    *("arm", *FACTORS, "seed"),
    *("figure", "better", "downstream_before", "downstream_after", "downstream", "reached"),
    *("steps", "tokens", "doses", "figures", "losses", "seconds", "step_seconds", "fixed_seconds", "status", "error"),
    *("edit", "update_norms", "arrived"),
    *("dropped", "dropped_reasons", "protocol", "options", "tuning"),
)


def collect_rows(store: Store, plan: Plan) -> pd.DataFrame:
    """The tidy rows of all arms and seeds, from whatever steps are finished; empty when none is."""
    frames = []
    for run in plan.runs:
        for step in (run.base, run.edited, *run.tunes):
            if step is not None and store.has(step):
                frame = read_table(store.path(step) / ROWS)
                if step is run.base and run.arm.isolated:
                    frame = _in_each_copy(frame)
                frames.append(_of_arm(run, frame))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _in_each_copy(rows: pd.DataFrame) -> pd.DataFrame:
    """The base model's answers as those of every copy: about the copy's own edited fact, and all intrinsic ones."""
    edited = rows["fact_set"] == "edited"
    own = {fact: copy for copy, fact in enumerate(rows.loc[edited, "fact_id"].drop_duplicates())}
    shared = [rows[~edited].assign(copy=copy) for copy in own.values()]
    return pd.concat([rows[edited].assign(copy=rows.loc[edited, "fact_id"].map(own)), *shared], ignore_index=True)


def collect_runs(store: Store, plan: Plan, failures: Mapping[str, str]) -> pd.DataFrame:
    """One row per arm and seed: losses, cost, and whether it came to its end. Isolated arms are means over copies.

    ``status`` is "done", "failed", or "partly" where some copies of an isolated arm did not come to their end.
    ``protocol``, ``options`` and ``tuning`` (JSON) are what else the arm is.
    ``seconds`` is what the arm takes on its own: its edit, the exam after it, and its tuning. ``edit`` says in words
    how the edit was made, ``update_norms`` (JSON) how large it is, ``arrived`` which share of the change
    that its editor wanted arrives, the mean over facts. ``downstream`` (JSON) holds all downstream figures before and
    after, ``doses`` (JSON) the utility at each dose that all copies reached, ``figures`` (JSON) the utility by copy and
    step, 0 before tuning, of the model that became that of the end: not on the way to one whose weights a protection
    changed when training was over, ``losses`` (JSON) the loss of each held-out row after tuning, summed, and its
    tokens, where the utility is the loss. ``step_seconds`` is what training by itself took for an optimizer step,
    protections included, without exams and held-out figures: of the processor on a CPU; None for older runs.
    ``fixed_seconds`` is what protections took once, before the first step and after the last, and is in no step's time;
    in those of older runs it is.
    ``dropped`` counts training examples left out because they speak of a fact, ``dropped_reasons`` (JSON) counts them
    by reason. ``failures``: what went wrong, by step key.
    """
    lines = []
    for run in plan.runs:
        finished = [step for step in run.tunes if store.has(step)]
        status = "done" if len(finished) == len(run.tunes) else "partly" if finished else "failed"
        error = next((failures[step.key] for step in run.steps if step.key in failures), None)
        line: dict[str, Any] = {**_about(run), "status": status, "error": error, **_settings(run.arm)}
        own = [step for step in (run.edit, run.edited, run.vector, *run.tunes) if step is not None and store.has(step)]
        line["seconds"] = sum(float(store.record_of(step)["seconds"]) for step in own)
        if run.edit is not None and store.has(run.edit):
            record = store.record_of(run.edit)
            line["edit"] = edit_in_words(run.arm, record)
            line["update_norms"] = json.dumps(record["norms"])
            line["arrived"] = fmean(record["arrived"].values()) if record["arrived"] else None
        if finished:
            tunings = [read_json(store.path(step) / TUNING) for step in finished]
            line |= _tuning_line(tunings)
            finishes = any(one.finishes for one in run.arm.protections)
            by_copy = {run.tunes.index(step): tuning for step, tuning in zip(finished, tunings, strict=True)}
            line["figures"] = json.dumps({copy: _figures(tuning, finishes) for copy, tuning in by_copy.items()})
        lines.append(line)
    return pd.DataFrame(lines, columns=list(RUN_COLUMNS)).astype({"dropped": "Int64", "reached": "boolean"})


def _settings(arm: Arm) -> dict[str, str]:
    """What else an arm is, for telling which arms differ in one thing only; mappings as JSON."""
    return {
        "protocol": arm.protocol,
        "options": json.dumps({} if arm.editor is None else arm.editor.model_dump(mode="json"), sort_keys=True),
        "tuning": json.dumps(arm.tuning.model_dump(mode="json"), sort_keys=True),
    }


def _tuning_line(tunings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the run table says of tuning: of one run, or on average over copies."""
    first = tunings[0]
    figures = {
        phase: {name: fmean(tuning[phase][name] for tuning in tunings) for name in first[phase]}
        for phase in ("before", "after")
    }
    reasons: Counter[str] = Counter()
    for tuning in tunings:
        reasons.update(tuning["dropped_reasons"])
    return {
        "figure": first["figure"],
        "better": first["better"],
        "downstream_before": figures["before"][first["figure"]],
        "downstream_after": figures["after"][first["figure"]],
        "downstream": json.dumps(figures),
        "reached": None if first["reached"] is None else all(tuning["reached"] for tuning in tunings),
        "steps": fmean(tuning["steps"] for tuning in tunings),
        "tokens": sum(tuning["tokens"] for tuning in tunings),
        "doses": json.dumps(_doses(tunings)),
        "losses": json.dumps([row for tuning in tunings for row in tuning.get("losses", ())]),
        "step_seconds": _step_seconds(tunings),
        "fixed_seconds": fmean(tuning.get("fixed_seconds", 0.0) for tuning in tunings),
        "dropped": sum(reasons.values()),
        "dropped_reasons": json.dumps(dict(reasons), ensure_ascii=False),
    }


def _doses(tunings: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    figures: dict[str, list[float]] = {}
    for tuning in tunings:
        for reached in tuning["doses"]:
            figures.setdefault(str(reached["dose"]), []).append(reached["figure"])
    return {dose: fmean(found) for dose, found in figures.items() if len(found) == len(tunings)}


def _figures(tuning: Mapping[str, Any], finishes: bool) -> dict[int, float]:
    """The utility by step, from before tuning to its end."""
    name = tuning["figure"]
    on_the_way = {reached["step"]: reached["figure"] for reached in tuning["doses"]}
    on_the_way |= {int(step): figure for step, figure in tuning.get("looks", {}).items()}
    found = {0: tuning["before"][name]} | ({} if finishes else dict(sorted(on_the_way.items())))
    return found | {tuning["steps"]: tuning["after"][name]}


def _step_seconds(tunings: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds of training for an optimizer step, over all copies."""
    if any("training_seconds" not in tuning for tuning in tunings):
        return None
    seconds = sum(tuning["training_seconds"] - tuning.get("fixed_seconds", 0.0) for tuning in tunings)
    return float(seconds / sum(tuning["steps"] for tuning in tunings))


def write_results(
    store: Store, plan: Plan, failures: Mapping[str, str], provenance: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write facts.parquet, runs.parquet, provenance.json, their hashes and what a report has; return the summary. Where
    no step has any rows, nothing made of earlier ones is left."""
    rows, runs = collect_rows(store, plan), collect_runs(store, plan, failures)
    if rows.empty:
        store.drop_results()
    _write_table(store, "runs.parquet", runs)
    store.write_text("provenance.json", json.dumps(provenance, indent=2) + "\n")
    _write_explanations(store, plan)
    if not rows.empty:
        _write_table(store, "facts.parquet", rows)
    seal_results(store.folder)
    if rows.empty:
        return []
    run = read_run(store.folder)
    return report_on(store.folder, run=replace(run, changed=changed_settings(run.settings))).summary


def predicted(store: Store, plan: Plan) -> dict[str, dict[str, float]]:
    """What was predicted for the finished steps and what they took, by kind: their number ``steps``, and in seconds
    ``predicted`` and ``seconds``. Those of which nothing was predicted are left out."""
    found: dict[str, dict[str, float]] = {}
    for record in (store.record_of(step) for step in plan.steps if store.has(step)):
        if record.get("predicted"):
            of_kind = found.setdefault(record["kind"], {"steps": 0, "predicted": 0.0, "seconds": 0.0})
            of_kind["steps"] += 1
            of_kind["predicted"] += record["predicted"]
            of_kind["seconds"] += record["seconds"]
    return found


def _about(run: ArmRun) -> dict[str, Any]:
    return {"arm": run.arm.name, **run.arm.factors, "seed": run.seed}


def _of_arm(run: ArmRun, rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(_about(run), index=rows.index), rows], axis=1)


def edit_in_words(arm: Arm, record: Mapping[str, Any]) -> str:
    """What the editor's name does not say: the layers, what its covariance lacks of the texts that it asks for, and
    whether bystanders were preserved beside ordinary text."""
    layers = record["layers"]
    words = f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
    wanted, texts = getattr(arm.editor, "covariance_texts", None), record["texts"]
    if None not in (wanted, texts) and texts < wanted and getattr(arm.editor, COVARIANCE_TOKENS) != 0:
        words += f"; covariance of {texts:,} texts, all that there are, of {wanted:,}"
    weight = getattr(arm.editor, "bystander_weight", None)
    if weight is None:
        return words
    if weight == 0 or record["bystanders"] == 0:
        return f"{words}; no bystanders preserved"
    return f"{words}; {record['bystanders']} bystanders preserved with weight {weight:g}"


def _write_explanations(store: Store, plan: Plan) -> None:
    """Write the rows of all explained arms and seeds. An earlier run's table is removed if there are none."""
    for name, part in _EXPLANATIONS.items():
        frames = [
            _of_arm(run, read_table(store.path(run.explain) / part))
            for run in plan.runs
            if run.explain is not None and store.has(run.explain)
        ]
        if frames:
            _write_table(store, name, pd.concat(frames, ignore_index=True))
        else:
            remove(store.folder / name)


def _write_table(store: Store, name: str, table: pd.DataFrame) -> None:
    with whole_file(store.folder / name) as path:
        table.to_parquet(path, index=False)
