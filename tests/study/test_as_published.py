"""The published protocol's defects, kept on demand: what counts, what is trained on, what is filtered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.errors import ConfigError
from indelible.exam.criterion import appears
from indelible.study.design.config import parse_config
from indelible.study.design.settings import StudyConfig
from indelible.study.run.kept import ChosenFacts, chosen_facts
from indelible.study.run.run import Outcome, preview_study, run_study
from indelible.study.run.sources import candidate_facts
from indelible.study.run.step import Job, Material, World, do_step
from tiny_studies import study_settings, taught_facts


@pytest.mark.parametrize(
    ("generated", "target", "found"),
    [
        (" a city. Its river is the Seine in Paris", "Paris", True),
        (" Parisian streets", "Paris", False),
        (" comParis", "Paris", False),
        (" PARIS!", "Paris", True),
        (" Guinea-Bissau, and Guinea", "Guinea", True),
        (" Guinea-Bissau", "Guinea", False),
        ("", "Paris", False),
        (" in The Hague", "the Hague", True),
    ],
)
def test_an_answer_appears_anywhere_in_whole_words(generated: str, target: str, found: bool) -> None:
    assert appears(generated, target) is found


def small(taught: Path, **changes: Any) -> StudyConfig:
    """A study of one arm without a curve."""
    settings = study_settings(taught) | {"exam": {}}
    settings["facts"]["n_edits"] = 3
    settings["tuning"]["steps"] = 2
    return StudyConfig.model_validate({**settings, "arms": settings["arms"][:1], **changes})


@pytest.fixture(scope="module")
def published(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_study(small(taught, as_published=True), tmp_path_factory.mktemp("published") / "run")


def test_edits_are_judged_by_the_first_token_and_intrinsic_facts_by_appearance(published: Outcome) -> None:
    assert published.failures == ()
    rows = pd.read_parquet(published.folder / "facts.parquet")
    edited = rows[(rows["fact_set"] == "edited") & (rows["kind"] != "neighbour")]
    assert (edited["success"] == edited["first_token"]).all()
    intrinsic = rows[rows["fact_set"] == "intrinsic"]
    judged = [appears(said, target) for said, target in zip(intrinsic["generated"], intrinsic["target"], strict=True)]
    assert list(intrinsic["success"]) == judged


def test_the_report_says_that_edited_and_intrinsic_facts_are_judged_by_two_criteria(published: Outcome) -> None:
    assert published.report is not None
    page = " ".join(published.report.read_text(encoding="utf-8").split())
    assert "judged alike" not in page and "by the same criterion" not in page
    assert "Judged as published: edits by their first token" in page
    assert "of two kinds: an edited fact succeeds when its target's first token" in page


@pytest.mark.parametrize(
    ("setting", "where"),
    [("exam.every=2", "exam.every"), ("explain=true", "explain"), ("arms.memit.explain=true", "explain")],
)
def test_what_is_judged_by_one_criterion_alone_cannot_be_asked_for(setting: str, where: str, taught: Path) -> None:
    with pytest.raises(ConfigError, match=f"as_published has no {where}"):
        parse_config(small(taught, as_published=True).to_yaml(), "s.yaml", taught, [setting])


def test_steps_of_the_corrected_protocol_are_not_taken_for_them(published: Outcome, taught: Path) -> None:
    preview = preview_study(small(taught), published.folder, update=True)
    reused = {step.kind for step in preview.plan.steps if step.key in preview.reused}
    assert reused == set(), "other facts are chosen"


def chosen(taught: Path, folder: Path, **changes: Any) -> tuple[ChosenFacts, dict[str, Any]]:
    """What a study chooses of the taught facts and as many that nobody taught, and the record of it."""
    rows = taught_facts()
    foreign = [
        {**row, "id": f"not {row['id']}", "subject": f"New {row['subject']}", "true_object": "Quito"} for row in rows
    ]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + foreign), encoding="utf-8")
    facts = {"source": str(folder / "facts.jsonl"), "n_edits": 6, "n_intrinsic": 9, "redraw": True}
    config = small(taught, facts={**facts, **changes.pop("facts", {})}, **changes)
    step = preview_study(config, folder / "run").plan.steps[0]
    (folder / "made").mkdir()
    done = do_step(Job(step, {}, folder / "made"), Material(World(config.model, candidate_facts(config.facts), "")))
    return chosen_facts(folder / "made"), {"note": done.note, **done.record}


@pytest.mark.parametrize("changes", [{"as_published": True}, {"facts": {"edited": "any"}}])
def test_facts_are_edited_whether_or_not_they_are_known(changes: dict[str, Any], taught: Path, tmp_path: Path) -> None:
    facts, record = chosen(taught, tmp_path, **changes)
    assert 0 < record["edited_known"] < len(facts.edited) == 6
    assert not any(fact.id.startswith("not ") for fact in facts.intrinsic)


@pytest.mark.parametrize("changes", [{}, {"as_published": True, "facts": {"edited": "known"}}])
def test_only_known_facts_are_edited_where_that_is_asked(changes: dict[str, Any], taught: Path, tmp_path: Path) -> None:
    facts, record = chosen(taught, tmp_path, **changes)
    assert record["edited_known"] == len(facts.edited)
    drawn, known = record["strata"]["intrinsic"], record["strata"]["known"]
    assert sum(drawn.values()) == len(facts.intrinsic) == 9 and sum(known.values()) == record["known"]
    lacking = [name for name, count in drawn.items() if count < 3]
    assert ("there are no more" in record["note"]) == bool(lacking and not changes)
