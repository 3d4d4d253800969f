"""Checkpoints are told apart: the edit holds, it is gone, the model is damaged, or it cannot be told."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch

import indelible
from indelible.care.audit import Audit, Audited
from indelible.care.verify import Verification, Verified
from indelible.cli.main import main
from indelible.cli.options import write_cases
from indelible.edits.deltas.delta import Edit
from indelible.errors import ConfigError, EditError, FactsError, StoreError
from indelible.exam.exam import Answer
from indelible.exam.questions import questions_for
from indelible.models.fingerprint import fingerprint
from indelible.models.load import LoadedModel
from indelible.models.save import save_model
from tiny_studies import taught_facts

NEW = 3


@dataclass(frozen=True)
class Checkpoints:
    base: LoadedModel
    edited: LoadedModel
    delta: Edit
    facts: list[indelible.Fact]
    known: list[indelible.Fact]


@pytest.fixture(scope="module")
def made(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    facts = [indelible.Fact(**{**row, "paraphrases": (), "held_out": ()}) for row in taught_facts()]
    base = indelible.load(str(taught / "model"), device="cpu")
    delta = indelible.edit(base, facts[:NEW], "ft-m", steps=60, learning_rate=0.01)
    edited = replace(base, model=copy.deepcopy(base.model), name="edited")
    delta.apply(edited.model)
    known = [replace(fact, new_object=None) for fact in facts[12:]]
    return Checkpoints(base, edited, delta, facts[:NEW], known)


def noisy(loaded: LoadedModel, by: float) -> LoadedModel:
    """A copy in which every weight moved by that part of its spread."""
    moved = replace(loaded, model=copy.deepcopy(loaded.model), name="noisy")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in moved.model.parameters():
            if weight.dim() > 1:
                weight.add_(by * weight.std() * torch.randn(weight.shape, generator=generator))
    return moved


def test_an_edit_that_holds(made: Checkpoints) -> None:
    before = fingerprint(made.base.model)
    found = indelible.audit(noisy(made.edited, 0.001), base=made.base, delta=made.delta, intrinsic=made.known)
    assert fingerprint(made.base.model) == before
    assert found.passes and found.answered == (NEW, NEW)
    assert found.verdict == f"{NEW} of {NEW} edits hold, and what the model knew of old is kept."
    assert found.estimates["retention_edited"].value == found.estimates["retention_intrinsic"].value == 1.0
    assert found.remains is not None and 0.95 < found.remains.share < 1.05
    assert found.moved is not None and found.moved.verdict == "unknown"  # in three layers
    assert set(found.rows["phase"]) == {"base", "edited", "tuned"}


def test_an_edit_that_is_gone(made: Checkpoints) -> None:
    found = indelible.audit(made.base, base=made.base, edited=made.edited, facts=made.facts, intrinsic=made.known)
    assert not found.passes and found.answered == (0, NEW)
    assert "the edit is gone" in found.verdict and "damaged" not in found.verdict
    assert [one.state for one in found.facts] == ["old answer"] * NEW
    assert found.to_frame()["tuned"].tolist() == found.to_frame()["base"].tolist()
    assert found.estimates["gap"].value == 1.0
    assert found.moved is not None
    assert [layer for layer, share in found.moved.by_layer().items() if share] == [0]


def test_a_damaged_model_is_not_called_a_lost_edit(made: Checkpoints) -> None:
    found = indelible.audit(noisy(made.edited, 3.0), made.facts, edited=made.edited, intrinsic=made.known)
    assert not found.passes
    assert "not lost alone: the model is damaged" in found.verdict
    assert "another answer" in [one.state for one in found.facts]
    assert found.remains is None and "retention_intrinsic_base" not in found.estimates


def test_what_the_edit_never_held_is_not_lost(made: Checkpoints) -> None:
    other = [indelible.Fact(**{**row, "paraphrases": (), "held_out": ()}) for row in taught_facts()[NEW : NEW + 1]]
    found = indelible.audit(made.edited, [*made.facts, *other], edited=made.edited, intrinsic=made.known)
    assert [one.state for one in found.facts] == [*["kept"] * NEW, "not taken"]
    assert found.passes and found.answered == (NEW, NEW)
    nothing = indelible.audit(made.base, other, edited=made.edited, intrinsic=made.known)
    assert not nothing.passes and nothing.verdict.startswith("Nothing can have been lost")


def test_with_the_tuned_model_alone_no_more_is_said_than_it_answers(made: Checkpoints) -> None:
    found = indelible.audit(made.edited, made.facts)
    assert found.passes and found.estimates == {} and found.moved is None
    assert "cannot be told without a checkpoint from before" in found.verdict
    assert set(found.rows["fact_set"]) == {"edited"}
    of_base = indelible.audit(made.edited, made.facts, base=made.base, intrinsic=made.known)
    assert set(of_base.estimates) == {"retention_intrinsic", "retention_intrinsic_base"}
    assert of_base.verdict == f"{NEW} of {NEW} edits hold, and what the model knew of old is kept."


def test_what_cannot_be_audited_is_refused(made: Checkpoints, own_cache: None) -> None:
    for facts, said in (
        ([], "no facts to ask"),
        ([replace(made.facts[0], new_object=None)], "has no new object"),
        ([made.facts[0], made.facts[0]], "Two facts have the id"),
    ):
        with pytest.raises(FactsError, match=said):
            indelible.audit(made.edited, facts)
    with pytest.raises(ConfigError, match=r"required is 1\.5"):
        indelible.audit(made.edited, made.facts, required=1.5)
    with pytest.raises(EditError, match="changes no weights"):
        indelible.audit(made.edited, delta=indelible.edit(made.base, made.facts[:1], "ike", bystanders=0))


def test_the_model_that_holds_the_delta_is_not_asked_as_tuned(made: Checkpoints) -> None:
    with pytest.raises(ConfigError, match="The tuned model is the base"):
        indelible.audit(made.base, base=made.base, delta=made.delta, intrinsic=made.known)


def test_damage_by_the_edit_itself_is_damage(made: Checkpoints) -> None:
    """The answers of an edit that took half of what the base knew with it, and of tuning that took nothing more."""
    found = indelible.audit(made.edited, made.facts, edited=made.edited, base=made.base, intrinsic=made.known)
    lost = found.rows["fact_id"].isin([fact.id for fact in made.known[::2]]) & (found.rows["phase"] != "base")
    rough = replace(found, rows=found.rows.assign(success=found.rows["success"] & ~lost))
    assert (
        rough.estimates["retention_intrinsic"].value == 1.0 and rough.estimates["retention_intrinsic_base"].value < 0.6
    )
    assert rough.passes and "but the model is damaged" in rough.verdict


def test_what_is_required_of_edits_does_not_say_what_damage_is(made: Checkpoints) -> None:
    found = indelible.audit(noisy(made.edited, 3.0), made.facts, edited=made.edited, intrinsic=made.known)
    lenient = replace(found, required=0.0)
    assert lenient.passes and "but the model is damaged" in lenient.verdict


def test_a_share_is_met_where_it_is_met() -> None:
    """0.55 * 100 is more than 55 in floating point."""
    facts = [indelible.Fact(str(n), "x", "r", "{} is", "a", "b") for n in range(100)]
    kept = [Audited(fact, "kept" if n < 55 else "another answer", {}) for n, fact in enumerate(facts)]
    assert Audit(pd.DataFrame(), tuple(kept), None, None, 0.55).passes
    assert not Audit(pd.DataFrame(), tuple(kept), None, None, 0.56).passes
    (question, *_) = questions_for(facts[:1], "edited")
    answer = Answer(question, "b", True, True, -0.1, -2.0, 1)
    there = [Verified(fact, "present" if n < 55 else "gone", answer) for n, fact in enumerate(facts)]
    assert Verification("weights", tuple(there), None, "").passes(0.55)
    assert not Verification("weights", tuple(there), None, "").passes(0.56)


def test_where_nothing_was_taken_the_test_cases_fail_as_the_command_does(made: Checkpoints) -> None:
    found = indelible.audit(made.base, made.facts, edited=made.base, intrinsic=made.known)
    assert not found.passes and all(case.fails for case in found.cases())
    (question, *_) = questions_for(made.facts[:1], "edited")
    untaken = Verified(made.facts[0], "not taken", Answer(question, "", False, False, -9.0, -1.0, 9))
    none = Verification("weights", (untaken,), None, "")
    assert not none.passes(0.5) and all(case.fails for case in none.cases(0.5))
    assert none.passes() and not any(case.fails for case in none.cases())


def test_intrinsic_facts_are_about_others(made: Checkpoints) -> None:
    same = [replace(fact, new_object=None, subject=fact.subject.upper()) for fact in made.facts]
    found = indelible.audit(made.edited, made.facts, base=made.base, intrinsic=[*same, *made.known])
    assert set(found.rows.query("fact_set == 'intrinsic'")["fact_id"]) == {fact.id for fact in made.known}
    with pytest.raises(FactsError, match=r"none of these 0 facts \(3 more are about edited subjects\)"):
        indelible.audit(made.edited, made.facts, base=made.base, intrinsic=same)
    with pytest.raises(FactsError, match="Two facts have the id"):
        indelible.audit(made.edited, made.facts, base=made.base, intrinsic=[*made.known, *made.known])
    asked = replace(found, rows=found.rows[found.rows["fact_set"] == "edited"])
    assert asked.verdict.endswith("cannot be told: it knew none of the facts asked before.")


def test_all_intrinsic_facts_that_are_given_are_asked(made: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many are enough is said of the built-in ones."""
    monkeypatch.setattr("indelible.care.audit.N_INTRINSIC", 2)
    found = indelible.audit(made.edited, made.facts, base=made.base, intrinsic=made.known)
    assert set(found.rows.query("fact_set == 'intrinsic'")["fact_id"]) == {fact.id for fact in made.known}


def test_a_model_that_is_not_finite_is_damaged(made: Checkpoints) -> None:
    broken = replace(made.base, model=copy.deepcopy(made.base.model), name="broken")
    with torch.no_grad():
        for weight in broken.model.parameters():
            weight.fill_(float("nan"))
    found = indelible.audit(broken, base=made.base, delta=made.delta, intrinsic=made.known)
    assert "the model is damaged, 0% of old knowledge is kept" in found.verdict
    json.dumps(found.record(), allow_nan=False)
    json.dumps(indelible.verify(broken, made.delta).record(), allow_nan=False)


def test_results_where_nothing_can_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        write_cases(tmp_path / "file/in/edits.xml", "edits", [])


def test_the_command_is_a_gate(made: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {}
    for name, loaded in (("base", made.base), ("edited", made.edited)):
        save_model(loaded, tmp_path / name)
        names[name] = str(tmp_path / name)
    made.delta.save(tmp_path / "delta")
    known = tmp_path / "known.jsonl"
    known.write_text("".join(json.dumps(row | {"new_object": None}) + "\n" for row in taught_facts()[12:]))
    results = tmp_path / "edits.xml"
    about = ["--delta", str(tmp_path / "delta"), "--intrinsic", str(known), "--junit", str(results)]
    assert main(["audit", names["edited"], "--base", names["base"], *about, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("Cost: 3 models, ") and not results.exists()
    assert main(["audit", names["edited"], "--base", names["base"], *about]) == 0
    shown = capsys.readouterr().out
    assert f"{NEW} of {NEW} edits hold" in shown and "Of the delta 100.0% are in the weights" in shown
    assert ElementTree.parse(results).getroot().get("failures") == "0"
    assert main(["audit", names["base"], "--base", names["base"], *about, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["passes"] and told["delta_share"] == 0.0 and told["estimates"]["gap"]["value"] == 1.0
    assert told["facts"][0]["state"] == "old answer"
    assert ElementTree.parse(results).getroot().get("failures") == str(NEW)
    assert main(["audit", names["base"]]) == 2
    assert "There are no facts to ask." in capsys.readouterr().err
