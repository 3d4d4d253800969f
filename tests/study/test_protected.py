"""Arms whose edits are protected while the model is tuned."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.errors import ConfigError
from indelible.facts.fact import Fact, fact_from
from indelible.study.design.arms import resolve_arms
from indelible.study.design.settings import StudyConfig
from indelible.study.run.base_model import LentModel
from indelible.study.run.run import run_study
from indelible.study.run.steps.tune import Tune, replayable
from indelible.tuning.objective import tuning_settings
from indelible.tuning.protection import Protection
from indelible.tuning.protections.anchor import Anchor
from indelible.tuning.protections.replay import Replay
from tiny_studies import study_settings, taught_facts


def test_protected_arms_are_tuned_apart_and_told_apart(taught: Path, tmp_path: Path) -> None:
    settings = study_settings(taught)
    settings["facts"]["bystanders"] = 4
    settings["arms"] = [
        {"name": "plain", "editor": "memit"},
        {"name": "no dose", "editor": "memit", "protect": {"replay": {"share": 0}}},
        {"name": "held", "editor": "memit", "protect": "anchor+near"},
        {"name": "others", "editor": "memit", "protect": {"replay": {"of": "others"}}},
        {
            "name": "mended",
            "editor": "ft-m",
            "options": {"steps": 60, "learning_rate": 0.01},
            "protect": {"repair": {"every": 2}},
        },
        {"name": "mixed", "editor": "memit", "protect": "interpolate"},
        {"name": "control", "editor": "none"},
    ]
    outcome = run_study(StudyConfig.model_validate(settings), tmp_path / "run")
    assert outcome.failures == ()
    runs = pd.read_parquet(outcome.folder / "runs.parquet").set_index("arm")
    named = ["none", "replay(share=0.0)", "anchor+near", "replay(of=others)", "repair(every=2)", "interpolate", "none"]
    assert list(runs["protect"]) == named
    steps = {arm: list(json.loads(figures)["0"]) for arm, figures in runs["figures"].items()}
    assert steps.pop("mixed") == ["0", "6"], "on the way it was not what it became"
    assert set(map(tuple, steps.values())) == {("0", "3", "6")}
    durable = {line["arm"]: line["durability_intrinsic"] for line in outcome.summary}
    assert durable["mixed"] is None and durable["plain"] == durable["no dose"] != durable["held"]
    rows = pd.read_parquet(outcome.folder / "facts.parquet")
    tuned = rows[rows["phase"] == "tuned"].pivot_table(
        index=["fact_set", "fact_id", "kind", "wording"], columns="arm", values="log_prob"
    )
    assert (tuned["plain"] == tuned["no dose"]).all()
    assert (tuned["plain"] != tuned["held"]).any() and (tuned["plain"] != tuned["others"]).any()
    on_the_way = set(rows.loc[rows["phase"] == "tuning", "arm"])
    assert on_the_way == set(rows["arm"]) - {"mixed"}  # what it has before its end is not what comes out
    effects = pd.read_csv(outcome.folder / "tables" / "effects.csv")
    assert {"held", "others"} <= set(effects.loc[effects["versus"] == "plain", "arm"])


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"editor": "none", "protect": "replay"}, "edits nothing"),
        ({"editor": "memit", "protect": {"replay": {"of": "others"}}}, "facts.bystanders"),
        ({"editor": "memit", "protect": "near", "protocol": "task-vector"}, "sees no edit"),
        ({"editor": "memit", "protect": "nearer"}, "Unknown protection 'nearer'"),
        ({"editor": "memit", "protect": "none + replay"}, "names 'none' beside others"),
        ({"editor": "memit", "protect": {"interpolate": {"allowed": math.inf}}}, "finite number, not inf"),
        ({"editor": "ike", "protect": "near+key-anchor"}, "'key-anchor', but an edit by 'ike' lies in no layer"),
        ({"editor": "memit", "protect": "projection", "tuning": {"tuner": "dora"}}, "not work under the tuner 'dora'"),
        ({"editor": "memit", "protect": "repair", "tuning": {"tuner": "lora"}}, "not work under the tuner 'lora'"),
        ({"editor": "grace", "protect": "repair"}, "an edit by 'grace' changes no weights"),
    ],
)
def test_what_cannot_be_protected_is_refused_before_anything_is_done(
    taught: Path, arm: dict[str, Any], said: str
) -> None:
    settings = study_settings(taught)
    settings["facts"]["bystanders"] = 0
    settings["arms"] = [{"name": "arm", **arm}]
    with pytest.raises(ConfigError, match=said):
        resolve_arms(StudyConfig.model_validate(settings))


def test_what_is_replayed_beside_edits_is_known_and_speaks_of_nothing_that_is_asked(taught: Path) -> None:
    second, third, *_ = (fact_from({"neighbours": [], **row}) for row in taught_facts())
    unknown = replace(second, true_object=third.true_object)
    asked = Fact("asked", third.true_object, "of", "{} is the chief city of", third.subject)
    lent = LentModel(str(taught / "model"), lambda note: None)
    with lent.base_model() as model:
        assert replayable(model, lent, [], [second, third, unknown]) == [second, third]
        assert replayable(model, lent, [asked], [second, third, unknown]) == [second]


def test_a_protection_that_does_something_else_is_another_step() -> None:
    def options(*protections: Protection) -> object:
        return Tune(tuning_settings({}), "none", None, None, False, False, protections=protections).options[
            "protections"
        ]

    class Another(Replay):
        version = Replay.version + 1

    assert options(Replay()) == options(Replay()) != options(Another()) != options(Anchor())
