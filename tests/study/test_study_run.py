"""Whole studies on a tiny model: what they leave, what they repeat, what they survive."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from indelible.edits.editors.memit import Memit
from indelible.errors import ConfigError, EditError, FactsError, LayoutError, StoreError
from indelible.exam.exam import take_exam
from indelible.report.folder import report_on
from indelible.report.results import spoiled
from indelible.study.design.settings import StudyConfig
from indelible.study.reporting import report_run
from indelible.study.run.provenance import command_line
from indelible.study.run.run import Outcome, plan_of, preview_study, run_study
from indelible.study.run.store import Store
from indelible.study.run.tables import write_results
from tiny_studies import study_settings, taught_facts

ARMS = ["memit", "memit-frozen", "control"]


def rows_of(outcome: Outcome) -> pd.DataFrame:
    return pd.read_parquet(outcome.folder / "facts.parquet")


def titles(folder: Path, event: str) -> list[str]:
    return [entry["title"] for entry in Store(folder).events() if entry["event"] == event and "title" in entry]


class Alone(NamedTuple):
    """The control without other arms: what it came to, whether random states are as before, exams during tuning."""

    outcome: Outcome
    settings: dict[str, Any]
    states_kept: bool
    exams: int


def random_states() -> list[Any]:
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


@pytest.fixture(scope="module")
def alone(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Don't change its folder in a test, it is shared."""
    settings = study_settings(taught)
    settings["arms"] = settings["arms"][2:]
    exams: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        exams.append(1)
        return take_exam(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indelible.exam.callback.take_exam", counted)
        before = random_states()
        outcome = run_study(StudyConfig.model_validate(settings), tmp_path_factory.mktemp("alone") / "run")
        return Alone(outcome, settings, random_states() == before, len(exams))


def control_rows(outcome: Outcome) -> pd.DataFrame:
    rows = rows_of(outcome)
    return rows[rows["arm"] == "control"].reset_index(drop=True)


def test_a_finished_study_leaves_its_tables_and_report(undisturbed: Outcome) -> None:
    assert undisturbed.failures == ()
    for name in ("facts.parquet", "runs.parquet", "summary.json", "report.html", "config.yaml", "provenance.json"):
        assert (undisturbed.folder / name).stat().st_size > 0
    assert json.loads((undisturbed.folder / "summary.json").read_text()) == undisturbed.summary
    assert [line["arm"] for line in undisturbed.summary] == ARMS
    provenance = json.loads((undisturbed.folder / "provenance.json").read_text())
    assert {"torch", "transformers", "python"} <= provenance["versions"].keys()


def test_what_was_predicted_stands_beside_what_it_took(undisturbed: Outcome) -> None:
    times = pd.read_csv(undisturbed.folder / "tables" / "times.csv").set_index("step")
    assert times["steps"].to_dict() == {"select": 1, "probe": 2, "edit": 1, "tune": 3}
    records = [json.loads(path.read_text()) for path in undisturbed.folder.glob("steps/*/step.json")]
    tuning = [record for record in records if record["kind"] == "tune"]
    assert times.loc["tune", "predicted"] == pytest.approx(sum(one["predicted"] for one in tuning))
    assert times.loc["tune", "seconds"] == pytest.approx(sum(one["seconds"] for one in tuning))
    assert (times["predicted"] > 0).all() and (times["seconds"] > 0).all()


def test_of_steps_that_are_gone_no_results_are_left(undisturbed: Outcome, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(undisturbed.folder, tmp_path / "run")))
    plan = plan_of(StudyConfig.model_validate(store.config_dict()), store)
    shutil.rmtree(store.folder / "steps")
    assert write_results(store, plan, {}, {}) == [] and spoiled(store.folder) == []
    with pytest.raises(StoreError, match=r"no finished study: facts\.parquet is missing"):
        report_on(store.folder)
    assert not (store.folder / "report.html").exists()


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["/opt/bin/indelible", "study", "{here}/my own.yaml", "--out=runs/x"], "study 'my own.yaml' --out=runs/x"),
        (["/lib/indelible/__main__.py", "study", "q", "--set", "corpus={here}/c"], "study q --set corpus=c"),
        (["indelible", "study", "q", "--on", "ray://me:pass@head:10001"], "study q --on ray://head:10001"),
        (
            ["indelible", "study", "q", "--set", "slurm.setup=[export HF_TOKEN=hf_1]"],
            "'slurm.setup=[export HF_TOKEN=...'",
        ),
        (["indelible", "study", "q", "--set", "slurm.setup=AWS_SECRET_ACCESS_KEY=a1"], "AWS_SECRET_ACCESS_KEY=..."),
        (["indelible", "study", "q", "--set", "tuning.max_tokens=64"], "study q --set tuning.max_tokens=64"),
    ],
)
def test_what_was_typed_is_kept_without_secrets_and_places(typed: list[str], shown: str) -> None:
    here = str(Path.cwd())
    assert command_line([word.format(here=here) for word in typed]).endswith(shown)
    assert command_line(["/home/me/indelible/train.py", "--key", "secret"]) == "train.py"


def test_rows_are_tidy(undisturbed: Outcome) -> None:
    rows = rows_of(undisturbed)
    phases = {arm: list(dict.fromkeys(rows[rows["arm"] == arm]["phase"])) for arm in ARMS}
    assert phases["memit"] == ["base", "edited", "tuning", "tuned"]
    assert phases["control"] == ["base", "tuning", "tuned"]
    assert set(rows[rows["phase"] == "tuning"]["step"]) == {3}
    assert set(rows[rows["phase"] == "tuned"]["step"]) == {6}
    assert set(rows[rows["phase"] == "tuning"]["kind"]) == {"prompt"}
    for run in pd.read_parquet(undisturbed.folder / "runs.parquet").to_dict("records"):
        figures = json.loads(run["figures"])["0"]
        assert list(figures) == ["0", "3", "6"] and run["step_seconds"] > 0
        assert (figures["0"], figures["6"]) == (run["downstream_before"], run["downstream_after"])
    one = ["arm", "seed", "copy", "phase", "step", "fact_set", "fact_id", "kind", "wording"]
    assert not rows.duplicated(one).any()
    prompts = rows[(rows["phase"] == "base") & (rows["arm"] == "control") & (rows["kind"] == "prompt")]
    assert Counter(prompts["fact_set"]) == {"edited": 4, "intrinsic": 8}
    assert prompts[prompts["fact_set"] == "intrinsic"]["success"].all()
    assert not prompts[prompts["fact_set"] == "edited"]["success"].any()


def test_seeds_have_their_own_facts_and_a_curve_without_points_leaves_the_two_ends(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"arms": settings["arms"][2:], "exam": {"every": 100}, "seeds": [0, 1]}
    rows = rows_of(run_study(StudyConfig.model_validate(settings), tmp_path / "run"))
    assert set(rows["phase"]) == {"base", "tuned"}
    assert rows["step"].dtype == "int64"
    assert rows["success"].dtype == "bool"
    first, second = (tuple(rows[rows["seed"] == seed]["fact_id"].drop_duplicates()) for seed in (0, 1))
    assert first != second


def test_the_edit_and_the_tuning_did_something(undisturbed: Outcome) -> None:
    rows = rows_of(undisturbed)
    edited = rows[(rows["fact_set"] == "edited") & (rows["kind"] == "prompt") & (rows["arm"] == "memit")]
    by_phase = edited.groupby("phase")["log_prob"].mean()
    assert by_phase["edited"] > by_phase["base"] + 1
    assert {line["figure"] for line in undisturbed.summary} == {"loss"}
    for taken in pd.read_parquet(undisturbed.folder / "runs.parquet")["downstream"].map(json.loads):
        assert taken["after"]["loss"] < taken["before"]["loss"]


def test_arms_with_one_edit_share_its_rows(undisturbed: Outcome) -> None:
    rows = rows_of(undisturbed)
    answers = ["fact_id", "kind", "wording", "generated", "log_prob"]
    plain, frozen = (rows[(rows["arm"] == arm) & (rows["phase"] == "edited")][answers] for arm in ARMS[:2])
    pd.testing.assert_frame_equal(plain.reset_index(drop=True), frozen.reset_index(drop=True))


def test_arms_do_not_depend_on_each_other(undisturbed: Outcome, alone: Alone) -> None:
    """The control after two edited and tuned arms equals the control alone: the base model was put back exactly."""
    pd.testing.assert_frame_equal(rows_of(alone.outcome), control_rows(undisturbed))


def test_the_caller_keeps_its_random_state(alone: Alone) -> None:
    assert alone.states_kept


def test_no_exam_is_taken_twice_at_the_end(alone: Alone) -> None:
    assert alone.exams == 1  # after step 3 of 6


def test_a_finished_study_is_not_done_again_and_needs_no_model(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = StudyConfig.model_validate(alone.settings), tmp_path / "run"
    shutil.copytree(alone.outcome.folder, folder)
    started = titles(folder, "started")
    preview = preview_study(config, folder)
    assert preview.reused == {step.key for step in preview.plan.steps}
    monkeypatch.delattr("indelible.study.run.step.LentModel")
    again = run_study(config, folder)
    assert titles(folder, "started") == started
    assert again.summary == alone.outcome.summary
    (folder / "report.html").unlink()
    report_on(folder)
    assert (folder / "report.html").stat().st_size > 0
    (folder / "sha256.json").unlink()
    for table in ("facts.parquet", "runs.parquet"):  # as a version wrote them that knew no protections and no hashes
        pd.read_parquet(folder / table).drop(columns="protect").to_parquet(folder / table)
    assert report_on(folder).summary == alone.outcome.summary


def test_a_claim_that_this_version_cannot_read_is_named(alone: Alone, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(alone.outcome.folder, folder)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["claims"] = [{"name": "old", "sentence": "Old.", "estimate": "gap", "until": 3}]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "sha256.json").unlink()
    with pytest.raises(ConfigError, match=r"Unknown key 'claims.0 of .*run.until'"):
        report_on(folder)


def test_a_study_under_way_is_reported_as_far_as_it_is(undisturbed: Outcome, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.folder, folder)
    for name in ("facts.parquet", "runs.parquet", "summary.json", "report.html", "tables", "figures"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    titles = {json.loads(path.read_text())["title"]: path.parent for path in folder.glob("steps/*/step.json")}
    (left,) = [path for title, path in titles.items() if title.startswith("tune: memit-frozen")]
    shutil.rmtree(left)
    run = report_run(folder)
    by_arm = {line["arm"]: line for line in run.summary}
    assert by_arm["memit"]["retention_edited"] == undisturbed.summary[0]["retention_edited"]
    assert by_arm["memit-frozen"]["retention_edited"] is None and by_arm["memit-frozen"]["edit_success"] is not None
    assert f"{len(titles) - 1} of {len(titles)} steps are done, and 2 of 3 runs" in run.unfinished
    assert run.runs.set_index("arm")["error"].dropna().to_dict() == {"memit-frozen": "not done yet"}
    assert run.unfinished in (folder / "report.html").read_text(encoding="utf-8")
    assert run.changed is not None and "batch_size" in run.changed["tuning"] and "seeds" not in run.changed
    for path in folder.glob("steps/*"):
        shutil.rmtree(path)
    with pytest.raises(StoreError, match="no exam of this version's software is finished"):
        report_run(folder)


def test_a_changed_option_reruns_only_what_it_changes(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["arms"] = settings["arms"][:2]
    folder = tmp_path / "run"
    run_study(StudyConfig.model_validate(settings), folder)
    before = len(titles(folder, "started"))
    settings["arms"][1]["mask"] = "edited-weights"
    changed = StudyConfig.model_validate(settings)
    with pytest.raises(StoreError, match=r"'arms.1.mask' differs"):
        run_study(changed, folder)
    kept = {path.name for path in folder.rglob("*")}
    preview = preview_study(changed, folder, update=True)
    assert [step.title for step in preview.plan.steps if step.key not in preview.reused] == [
        "tune: memit-frozen, seed 0"
    ]
    assert {path.name for path in folder.rglob("*")} == kept  # a preview writes nothing
    run_study(changed, folder, update=True)
    assert titles(folder, "started")[before:] == ["tune: memit-frozen, seed 0"]


def test_a_failed_step_spares_the_others_and_is_tried_again(
    undisturbed: Outcome, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise EditError("The edit went wrong.", "Try another.")

    monkeypatch.setattr(Memit, "changer", fail)
    settings["arms"] = [
        {"name": "wild", "editor": "none", "tuning": {"learning_rate": 1e30}},
        {"name": "broken", "editor": "memit"},
        {"name": "control", "editor": "none"},
    ]
    config, folder = StudyConfig.model_validate(settings), tmp_path / "run"
    outcome = run_study(config, folder)
    failed = {failure.title: failure for failure in outcome.failures}
    assert set(failed) == {"tune: wild, seed 0", "edit: memit, seed 0"}
    assert "learning_rate" in failed["tune: wild, seed 0"].error
    assert failed["edit: memit, seed 0"].skipped == ("ask after memit, seed 0", "tune: broken, seed 0")
    runs = pd.read_parquet(folder / "runs.parquet").set_index("arm")
    assert runs["status"].to_dict() == {"wild": "failed", "broken": "failed", "control": "done"}
    assert "went wrong" in runs.loc["broken", "error"]
    assert next(line for line in outcome.summary if line["arm"] == "wild")["retention_intrinsic"] is None
    pd.testing.assert_frame_equal(control_rows(outcome), control_rows(undisturbed))  # nothing of the wild arm is left
    before = len(titles(folder, "started"))
    run_study(config, folder)
    assert set(titles(folder, "started")[before:]) == set(failed)


def test_edits_that_change_no_weights_are_studied_and_leave_nothing_behind(
    undisturbed: Outcome, settings: dict[str, Any], tmp_path: Path
) -> None:
    """A codebook is in the model for its own exams, before and after tuning, and out of it for the control's."""
    settings["arms"] = [
        {"name": "grace", "editor": "grace", "mask": "up-to-edited"},
        {"name": "control", "editor": "none"},
    ]
    outcome = run_study(StudyConfig.model_validate(settings), tmp_path / "run")
    assert not outcome.failures
    rows = rows_of(outcome)
    prompts = rows[(rows["arm"] == "grace") & (rows["fact_set"] == "edited") & (rows["kind"] == "prompt")]
    success = prompts.groupby("phase")["success"].mean()
    assert success["base"] < success["edited"] and success["tuned"] > success["base"]
    pd.testing.assert_frame_equal(control_rows(outcome), control_rows(undisturbed))


def test_too_few_known_facts_say_how_many_there_are(settings: dict[str, Any], tmp_path: Path) -> None:
    """The file has enough of them, and the model is found not to know six."""
    unknown = [{**row, "id": f"no {row['id']}", "subject": f"No{row['subject']}"} for row in taught_facts()[:6]]
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*taught_facts(), *unknown]), encoding="utf-8")
    settings["facts"] |= {"source": str(file), "n_intrinsic": 26}
    with pytest.raises(FactsError, match=r"2\d known facts"):
        run_study(StudyConfig.model_validate(settings), tmp_path / "run")
    assert all(event["event"] != "finished" for event in Store(tmp_path / "run").events())


def test_a_model_without_a_layout_ends_before_the_first_step(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(model: Any) -> None:
        raise LayoutError("No blocks.", "Give their path.")

    monkeypatch.setattr("indelible.study.run.base_model.find_layout", lost)
    with pytest.raises(LayoutError):
        run_study(StudyConfig.model_validate(settings), tmp_path / "run")
    assert not list((tmp_path / "run" / "steps").iterdir())


def test_another_tokenizer_reruns_everything(settings: dict[str, Any], taught: Path, tmp_path: Path) -> None:
    settings |= {"model": str(shutil.copytree(taught / "model", tmp_path / "model")), "arms": settings["arms"][2:]}
    config, folder = StudyConfig.model_validate(settings), tmp_path / "run"
    run_study(config, folder)
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "."}))
    assert preview_study(config, folder).reused == set()


def test_runs_say_how_edits_were_made_and_what_tuning_left_out(undisturbed: Outcome) -> None:
    runs = pd.read_parquet(undisturbed.folder / "runs.parquet").set_index("arm")
    edit = runs.loc["memit", "edit"]
    assert edit.startswith("layer") and "bystanders preserved with weight" in edit
    assert pd.isna(runs.loc["control", "edit"]) and pd.isna(runs.loc["control", "arrived"])
    assert f">{runs.loc['memit', 'arrived']:.0%}<" in (undisturbed.folder / "report.html").read_text()
    assert (runs["dropped"] >= 0).all()
    reasons = [sum(json.loads(counted).values()) for counted in runs["dropped_reasons"]]
    assert reasons == runs["dropped"].tolist()
    assert edit in (undisturbed.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("options", {"layers": [99]}, r"arms.memit.options.*99"),
        ("options", {"covariance_tokens": 8}, r"covariance_tokens' is 8, too few"),
        ("options", {"covariance_tokens": 10**6}, r"corpus has \d+ tokens"),
        ("paraphrases", 99, r"arms.memit.paraphrases.*99"),
    ],
)
def test_what_does_not_fit_is_found_before_the_first_step(
    settings: dict[str, Any], tmp_path: Path, key: str, value: Any, said: str
) -> None:
    settings["arms"][0][key] = value
    with pytest.raises(ConfigError, match=said):
        run_study(StudyConfig.model_validate(settings), tmp_path / "run")
    assert not titles(tmp_path / "run", "started")
