"""Arms over a quantised base: all that is asked of them is asked of the model that is tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.errors import ConfigError
from indelible.study.design.arms import resolve_arms
from indelible.study.design.settings import StudyConfig
from indelible.study.run.run import run_study
from tiny_studies import study_settings


def test_quantising_is_no_part_of_what_tuning_did(taught: Path, tmp_path: Path) -> None:
    settings = study_settings(taught)
    settings["tuning"] |= {"learning_rate": 1e-9, "steps": 2, "stop_at": {"loss": "-90%"}}  # nothing is learned
    settings["exam"] = {"every": 1}
    settings["arms"] = [
        {"name": "plain", "editor": "memit", "tuning": {"tuner": "lora"}},
        {"name": "quantised", "editor": "memit", "tuning": {"tuner": "qlora"}, "protect": "replay"},
        {"name": "control", "editor": "none", "tuning": {"tuner": "qlora"}},
    ]
    outcome = run_study(StudyConfig.model_validate(settings), tmp_path / "run")
    assert not outcome.failures
    kinds = [path.name.partition("-")[0] for path in (outcome.folder / "steps").iterdir()]
    assert (kinds.count("edit"), kinds.count("probe"), kinds.count("tune")) == (1, 4, 3)  # of them two base models
    rows = pd.read_parquet(outcome.folder / "facts.parquet")
    rows = rows[rows["kind"] == "prompt"].set_index(["phase", "arm", "fact_set", "fact_id"])["log_prob"].sort_index()

    def off(one: tuple[str, str], other: tuple[str, str]) -> float:
        return float(
            (rows.loc[one].groupby(level=[0, 1]).last() - rows.loc[other].groupby(level=[0, 1]).last()).abs().max()
        )

    assert off(("edited", "quantised"), ("tuning", "quantised")) < 1e-3
    assert off(("edited", "quantised"), ("tuned", "quantised")) < 1e-3
    assert off(("base", "quantised"), ("tuned", "control")) < 1e-3
    assert off(("base", "quantised"), ("base", "plain")) > 0.01 < off(("edited", "quantised"), ("edited", "plain"))
    gained = rows.loc["edited", "quantised", "edited"] - rows.loc["base", "quantised", "edited"]
    assert float(gained.mean()) > 1


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"editor": "memit", "explain": True}, "mixtures of weights"),
        ({"editor": "memit", "protocol": "task-vector"}, "no weight is tuned"),
        ({"editor": "grace"}, "recognises states of the plain model"),
        ({"editor": "memit", "protect": "interpolate"}, "'arms.arm.protect' has 'interpolate', which does not"),
        ({"editor": "memit", "protect": "repair"}, "not work under the tuner 'qlora'"),
    ],
)
def test_what_takes_plain_weights_is_refused_before_anything_is_done(
    taught: Path, arm: dict[str, Any], said: str
) -> None:
    settings = study_settings(taught)
    settings["arms"] = [{"name": "arm", "tuning": {"tuner": "qlora"}, **arm}]
    with pytest.raises(ConfigError, match=said):
        resolve_arms(StudyConfig.model_validate(settings))
