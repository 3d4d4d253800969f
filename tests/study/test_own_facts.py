"""Studies whose edited facts a user names: as they are, known or not, beside intrinsic facts from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from indelible.errors import IndelibleError
from indelible.study.design.arms import resolve_arms
from indelible.study.design.checks import checked_facts
from indelible.study.design.settings import StudyConfig
from indelible.study.run.kept import ChosenFacts, chosen_facts
from indelible.study.run.plan import make_plan
from indelible.study.run.run import preview_study, run_study
from indelible.study.run.sources import candidate_facts
from indelible.study.run.step import Job, Material, Versions, World, do_step
from indelible.study.run.store import Store
from tiny_studies import taught_facts

KNOWN = {key: taught_facts()[0][key] for key in ("subject", "prompt", "true_object")}
MINE: list[dict[str, Any]] = [
    {"id": "known", **KNOWN, "new_object": "Nor"},
    {"id": "same subject", "subject": "Arvo", "prompt": "In {} people drink", "new_object": "Port"},
    {"id": "new", "subject": "Zorb", "prompt": "The capital of {} is", "new_object": "Bra", "relation": "capital"},
]
ASKED = [{**row, "new_object": None} for row in taught_facts() if row["subject"] != "Arvo"]


def written(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def mine(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A study of three facts of a user's, beside the taught ones of another file."""
    edited, asked = written(tmp_path / "mine.jsonl", MINE), written(tmp_path / "asked.jsonl", ASKED)
    settings["facts"] = {"edited": edited, "intrinsic": asked, "n_intrinsic": 8}
    settings["editors"] = {"ft-m": {"steps": 5}}
    settings["arms"] = [{"name": "ft-m", "editor": "ft-m"}, {"name": "control", "editor": "none"}]
    settings["tuning"]["steps"] = 2
    return settings


def choose(settings: dict[str, Any], folder: Path) -> list[ChosenFacts]:
    """What the first step of each seed chooses."""
    config = StudyConfig.model_validate(settings)
    arms, candidates = resolve_arms(config), candidate_facts(config.facts)
    config = config.model_copy(update={"facts": checked_facts(candidates, arms, config.facts)})
    material = Material(World(config.model, candidates, config.corpus, seeds=config.seeds))
    chosen = []
    for run in make_plan(config, arms, Versions("", "", {}, "", "", "")).runs:
        (made := folder / run.select.name).mkdir(exist_ok=True)
        do_step(Job(run.select, {}, made), material)
        chosen.append(chosen_facts(made))
    return chosen


def test_all_facts_that_a_file_names_are_edited_as_they_are(mine: dict[str, Any], tmp_path: Path) -> None:
    outcome = run_study(StudyConfig.model_validate(mine), tmp_path / "run")
    assert outcome.failures == () and outcome.to_frame()["n_edits"].tolist() == [3, 0]
    for one in choose({**mine, "seeds": [0, 1]}, tmp_path):
        assert [(fact.id, fact.new_object) for fact in one.edited] == [(row["id"], row["new_object"]) for row in MINE]
        assert len(one.intrinsic) == 8 and {fact.id for fact in one.intrinsic} <= {row["id"] for row in ASKED}
        assert one.edited[2].neighbours and not one.edited[1].neighbours, "of its relation, where there are others"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_edits": 4}, "'facts.n_edits' is 4, but .* has 3 facts with a new object. Set it to 3 or less, or leave"),
        ({"n_intrinsic": 60}, "'facts.n_intrinsic' is 60, but there are only 23 subjects .* Set it to 23 or less"),
        ({"edited": "nown"}, "edited is 'nown': write known, any, or the name of a file"),
        ({"edited": None}, "intrinsic stands beside a file of edits"),
        ({"redraw": True}, "a file of edits is taken as it is"),
        (
            {"relations": ["language"]},
            "No fact of .* with a new object is of 'facts.relations'; they are of .*'capital'",
        ),
        ({"edited": "asked.jsonl"}, r"No fact of .*asked.jsonl has a new object"),
        ({"edited": None, "intrinsic": None, "source": "asked.jsonl"}, "24 edited and 8 .* as facts.edited"),
        ({"rows": [*MINE, {**MINE[2], "id": "d", "new_object": "P"}]}, "is to be 'Bra' .fact 'new'. and 'P' .fact 'd'"),
        ({"rows": [{"subject": "Zorb", "prompt": "{} is"}]}, "fit no known schema"),
    ],
)
def test_what_does_not_fit_is_said_before_the_model_is_loaded(
    mine: dict[str, Any], tmp_path: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "mine.jsonl", changes.get("rows", MINE))
    mine["facts"] |= {key: value for key, value in changes.items() if key != "rows"}
    with pytest.raises((IndelibleError, ValueError), match=said):
        preview_study(StudyConfig.model_validate({**mine, "model": "not/there"}), tmp_path / "run")


def test_edits_of_relations_without_an_intrinsic_fact_are_told(mine: dict[str, Any]) -> None:
    """A row that names no relation has its own wording for one; built-in facts have names."""
    notes: list[str] = []
    candidate_facts(StudyConfig.model_validate(mine).facts, notes.append)
    assert len(notes) == 1 and notes[0].startswith("2 of 3 edits are left out of what is compared at equal start")
    assert "'in _ people drink'" in notes[0] and "('capital', 'language')" in notes[0]
    written(Path(mine["facts"]["edited"]), [{**row, "relation": "capital"} for row in MINE])
    candidate_facts(StudyConfig.model_validate(mine).facts, notes.append)
    assert len(notes) == 1


def test_facts_of_two_files_with_one_id_are_told(mine: dict[str, Any]) -> None:
    """Only one of them can stand in the rows."""
    notes: list[str] = []
    written(Path(mine["facts"]["edited"]), [{**MINE[2], "id": ASKED[0]["id"]}])
    found = candidate_facts(StudyConfig.model_validate(mine).facts, notes.append)
    assert len(found) == len(ASKED)
    assert notes == ["1 fact of asked.jsonl left out: edited facts have the same `id`. Give each its own."]


def test_what_the_model_does_not_know_stops_the_study_once_with_numbers_that_fit_all_seeds(
    mine: dict[str, Any], tmp_path: Path
) -> None:
    few = [*ASKED[:5], *({**row, "true_object": "Zzz"} for row in ASKED[5:12])]
    written(tmp_path / "asked.jsonl", few)
    mine |= {"seeds": [0, 1, 2], "arms": mine["arms"][1:]}
    said = r"8 intrinsic facts were asked for, but of 5 that the model knows only 5 .* Set facts.n_intrinsic to 5, or"
    with pytest.raises(IndelibleError, match=said):
        run_study(StudyConfig.model_validate(mine), tmp_path / "run")
    assert [event["event"] for event in Store(tmp_path / "run").events()] == ["opened", "planned", "started"]
    assert not list((tmp_path / "run" / "steps").iterdir())
    mine["facts"]["n_intrinsic"] = 5
    assert [len(one.intrinsic) for one in choose(mine, tmp_path)] == [5, 5, 5]


def test_numbers_for_facts_that_are_drawn_fit_all_seeds_too(settings: dict[str, Any], tmp_path: Path) -> None:
    """How many drawn facts do not touch depends on the seed."""
    nested = [{**row, "id": f"{row['id']} Land", "subject": f"{row['subject']} Land"} for row in taught_facts()]
    settings["facts"] = {"source": written(tmp_path / "all.jsonl", [*taught_facts(), *nested])}
    settings["facts"] |= {"n_edits": 12, "n_intrinsic": 36, "edited": "any"}
    settings |= {"seeds": [0, 1, 2], "arms": settings["arms"][2:]}
    with pytest.raises(IndelibleError) as error:
        choose(settings, tmp_path)
    assert isinstance(error.value, IndelibleError)
    settings["facts"]["n_intrinsic"] = fits = int(error.value.fix.split("n_intrinsic to ")[1].split(",")[0])
    assert [(len(one.edited), len(one.intrinsic)) for one in choose(settings, tmp_path)] == [(12, fits)] * 3


def test_facts_that_cannot_be_asked_are_named_together(mine: dict[str, Any], tmp_path: Path) -> None:
    long = {**MINE[2], "id": "long", "prompt": "The capital of {} is" + " not" * 3000}
    written(tmp_path / "mine.jsonl", [*MINE, long, {**long, "id": "longer", "subject": "Zirb"}])
    with pytest.raises(IndelibleError, match=r"2 of 5 facts cannot be asked of this model: long: .*; longer: "):
        run_study(StudyConfig.model_validate(mine), tmp_path / "run")


def test_the_files_own_facts_without_a_new_object_are_intrinsic_and_else_the_built_in_ones(
    mine: dict[str, Any], tmp_path: Path
) -> None:
    both = written(tmp_path / "both.jsonl", [*MINE, *ASKED])
    config = StudyConfig.model_validate({**mine, "facts": {"edited": both}})
    assert [fact.id for fact in candidate_facts(config.facts)] == [row["id"] for row in (*MINE, *ASKED)]
    config = StudyConfig.model_validate({**mine, "facts": {"edited": mine["facts"]["edited"]}})
    found = candidate_facts(config.facts)
    assert len(found) > 1000 and [fact.id for fact in found if fact.new_object] == [row["id"] for row in MINE]
