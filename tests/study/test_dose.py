"""A study by dose: exams and held-out figures along one run of tuning, at so many tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.errors import ConfigError
from indelible.study.design.settings import StudyConfig
from indelible.study.run.run import preview_study, run_study
from tiny_studies import study_settings

DOSES = [200, 600, 1_000]


def by_dose(taught: Path, doses: list[int]) -> dict[str, Any]:
    settings = study_settings(taught) | {"exam": {}}
    settings["arms"] = [settings["arms"][0], settings["arms"][2]]
    settings["tuning"] |= {"steps": None, "dose": doses}
    return settings


def test_one_run_gives_the_curve_over_tokens(taught: Path, tmp_path: Path) -> None:
    outcome = run_study(StudyConfig.model_validate(by_dose(taught, DOSES)), tmp_path / "run")
    assert outcome.failures == () and outcome.report is not None
    rows = pd.read_parquet(tmp_path / "run" / "facts.parquet")
    runs = pd.read_parquet(tmp_path / "run" / "runs.parquet").set_index("arm")
    assert (rows.loc[rows["phase"].isin(["base", "edited"]), "tokens"] == 0).all()
    for arm, own in rows.groupby("arm"):
        seen = own[own["phase"].isin(["tuning", "tuned"])].groupby("step")["tokens"].unique().explode()
        reached = [int(seen[seen >= dose].iloc[0]) for dose in DOSES]
        assert set(reached) == set(seen), "an exam at each dose and none beside"
        assert reached[-1] == runs.loc[arm, "tokens"] and list(own["phase"])[-1] == "tuned"
        figures = json.loads(runs.loc[arm, "doses"])
        assert list(figures) == [str(dose) for dose in DOSES]
        assert figures["1000"] == runs.loc[arm, "downstream_after"]
    curves = pd.read_csv(tmp_path / "run" / "tables" / "curves.csv")
    for series in ("intrinsic", "control"):
        points = curves[(curves["arm"] == "memit") & (curves["series"] == series)]
        assert points["dose"].tolist() == [0, *DOSES] and points["step"].isna().all() and points["figure"].notna().all()
    assert "tokens seen in training" in outcome.report.read_text(encoding="utf-8")
    assert (tmp_path / "run" / "figures" / "curves-by-figure.pdf").is_file()


def test_as_published_has_no_points_on_the_way(taught: Path, tmp_path: Path) -> None:
    config = StudyConfig.model_validate(by_dose(taught, DOSES) | {"as_published": True})
    with pytest.raises(ConfigError, match=r"'arms.memit.tuning' has several doses"):
        preview_study(config, tmp_path)


def test_changes_are_counted_from_the_unedited_model(taught: Path, tmp_path: Path) -> None:
    settings = by_dose(taught, [150])
    settings["tuning"] |= {"objective": "text", "task": "reason", "stop_at": {"loss": "-40%"}}
    run_study(StudyConfig.model_validate(settings), tmp_path / "run")
    tunings = [json.loads(path.read_text()) for path in (tmp_path / "run").glob("steps/tune-*/tuning.json")]
    assert len({tuning["before"]["loss"] for tuning in tunings}) == 2
    control = next(tuning for tuning in tunings if tuning["wanted"]["loss"] == 0.6 * tuning["before"]["loss"])
    assert [tuning["wanted"] for tuning in tunings] == [pytest.approx(control["wanted"], rel=1e-6)] * 2
