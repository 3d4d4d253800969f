"""Repair: what tuning has lost is edited again, what still works is left alone, and the model stays as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import indelible
from indelible.care.repair import taking_turns, wanted
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import LowRank, WeightUpdate
from indelible.edits.mending import Mender, Mending
from indelible.errors import EditError, FingerprintError
from indelible.models.fingerprint import fingerprint
from indelible.models.load import LoadedModel
from tiny_models import Make, Tokenizer, moved

OPTIONS = {"steps": 60, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def tuned(taught: Path, own_cache: None) -> tuple[LoadedModel, Edit]:
    """A model that has lost some of six edits."""
    loaded = indelible.load(str(taught / "model"))
    facts = indelible.read_facts(taught / "facts.jsonl").facts[:6]
    edit = indelible.edit(loaded, facts, "ft-m", exam=True, **OPTIONS)
    edit.apply(loaded.model)
    for name, weight in moved(loaded.model, by=0.05).items():
        loaded.model.get_parameter(name).data.copy_(weight)
    return loaded, edit


def test_what_was_lost_is_answered_again(tuned: tuple[LoadedModel, Edit], tmp_path: Path) -> None:
    loaded, edit = tuned
    before = fingerprint(loaded.model)
    states = [one.state for one in indelible.verify(loaded, edit).facts]
    assert {"present"} < set(states)
    found = indelible.repair(loaded, edit, out=tmp_path / "again.safetensors")
    assert fingerprint(loaded.model) == before
    assert [one.state for one in found.before] == states
    assert [one.state for one in found.after] == ["present"] * 6 and not found.missing
    assert {fact.id for fact in found.lost} == {
        fact.id for fact, state in zip(edit.facts, states, strict=True) if state != "present"
    }
    again = Edit.load(tmp_path / "again")
    assert {fact.id for fact in found.lost} <= {fact.id for fact in again.facts}
    assert again.manifest.made[0].options == edit.manifest.made[0].options
    again.apply(loaded.model)
    assert indelible.verify(loaded, edit).counts == {"present": 6}
    assert indelible.repair(loaded, edit).edit is None
    assert isinstance(again, WeightUpdate)
    again.revert(loaded.model)
    assert fingerprint(loaded.model) == before


def test_what_cannot_be_mended_is_said(tuned: tuple[LoadedModel, Edit], tmp_path: Path) -> None:
    loaded, edit = tuned
    found = indelible.repair(loaded, edit, steps=1, learning_rate=1e-6, rounds=2)
    assert found.edit is not None and found.rounds == 1
    assert {one.fact.id for one in found.missing} == {fact.id for fact in found.lost}
    assert {found.why(one) for one in found.missing} <= {"gone", "weakened"}
    assert found.edit.not_taken == {fact.id for fact in found.lost}


def test_what_did_not_take_was_not_lost(tuned: tuple[LoadedModel, Edit]) -> None:
    loaded, edit = tuned
    found = indelible.repair(loaded, edit.with_answers(dict.fromkeys([fact.id for fact in edit.facts], "gone")))
    assert found.edit is None and found.lost == ()


def test_what_is_no_delta_of_weights_in_the_model_is_refused(
    tuned: tuple[LoadedModel, Edit], taught: Path, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    loaded, edit = tuned
    assert isinstance(edit, WeightUpdate)
    base = indelible.load(str(taught / "model"))
    with pytest.raises(EditError, match=r"does not hold the edit.*Apply"):
        indelible.repair(base, edit)
    with pytest.raises(FingerprintError, match="shape"):
        indelible.repair(LoadedModel(tiny_model("llama"), tiny_tokenizer, "other"), edit)
    with pytest.raises(EditError, match="'grace' changes no weights"):
        indelible.repair(loaded, edit, "grace")
    context = indelible.edit(base, edit.facts[:1], "ike", bystanders=0)
    with pytest.raises(EditError, match="A context changes no weights"):
        indelible.repair(loaded, context)
    with pytest.raises(EditError, match="has no facts"):
        indelible.repair(loaded, replace(edit, manifest=edit.manifest.but(facts=())))
    other = edit.manifest.made[0].model_copy(update={"editor": "rome"})
    with pytest.raises(EditError, match=r"made by ft-m \+ rome"):
        indelible.repair(loaded, replace(edit, manifest=edit.manifest.but(made=(*edit.manifest.made, other))))


def test_an_answer_that_runs_on_is_edited_with_its_end(tuned: tuple[LoadedModel, Edit]) -> None:
    loaded, edit = tuned
    one = next(one for one in indelible.verify(loaded, edit).facts if one.state != "present")
    likely = replace(one, answer=replace(one.answer, log_prob=math.log(0.6)))
    assert [fact.new_object for fact in wanted([one, likely])] == [one.fact.new_object, f"{one.fact.new_object}."]
    mender = Mender(Mending.of(edit), loaded.model, loaded.tokenizer, ())
    with mender.restored():
        change = mender.mend(wanted([likely]))
        text = f"{one.fact.text()} {one.fact.new_object}"
        tokens = torch.tensor([loaded.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            following = int(loaded.model(tokens).logits[0, -1].argmax())
    assert loaded.tokenizer.decode(following) == "."
    assert mender.update({one.fact.id}, change).facts == [one.fact]


SMALL = {"layers": (1,), "contexts": 0, "covariance_tokens": 600, "steps": 5}


@pytest.mark.parametrize(
    ("editor", "options"),
    [
        ("memit", {"covariance_weight": 1.0}),
        ("memit", {"covariance_weight": 1.0, "bystander_weight": 0.0}),
        ("alphaedit", {"null_threshold": 2.0, "size_weight": 0.01}),
    ],
)
def test_keys_of_what_still_works_are_answered_as_before(
    editor: str, options: dict[str, float], tiny_model: Make, tiny_tokenizer: Tokenizer, taught: Path
) -> None:
    facts = indelible.read_facts(taught / "facts.jsonl").facts[:6]
    made = indelible.EDITORS.get(editor)(**SMALL, **options)
    text = (taught / "corpus.txt").read_text().splitlines()
    model = tiny_model("llama")
    edit = made.edit(model, tiny_tokenizer, facts, corpus=text)
    how = Mending.of(edit).with_text(lambda: text)
    moves = []
    for kept in ((), facts[:3]):
        mender = Mender(how, model, tiny_tokenizer, kept)
        with mender.restored():
            change = mender.mend(facts[3:])
        ((name, delta),) = change.deltas.items()
        assert isinstance(delta, LowRank)
        rows = Mender(how, model, tiny_tokenizer, facts[:3]).keys_of_kept()[name]
        moves.append(float((delta.difference() @ rows).norm() / delta.difference().norm()))
    assert moves[1] < 0.3 * moves[0], moves


def test_what_was_kept_and_is_lost_later_is_no_longer_preserved(
    tiny_model: Make, tiny_tokenizer: Tokenizer, taught: Path
) -> None:
    facts = indelible.read_facts(taught / "facts.jsonl").facts[:6]
    text = (taught / "corpus.txt").read_text().splitlines()
    model = tiny_model("llama")
    edit = indelible.EDITORS.get("memit")(**SMALL, covariance_weight=1.0).edit(
        model, tiny_tokenizer, facts, corpus=text
    )
    how = Mending.of(edit).with_text(lambda: text)
    moves = []
    for kept in (facts[:3], facts[1:3]):
        mender = Mender(how, model, tiny_tokenizer, kept)
        with mender.restored():
            mender.mend(facts[3:])
            rows = Mender(how, model, tiny_tokenizer, facts[:1]).keys_of_kept()
            ((name, delta),) = mender.mend(facts[:1]).deltas.items()
        moves.append(float((delta.difference() @ rows[name]).norm() / delta.difference().norm()))
    assert moves[0] > 0.7 * moves[1], moves


def test_texts_take_turns_by_their_length() -> None:
    assert list(taking_turns(["aaaa", "bbbb"], ["c", "d", "e", "f", "g"])) == ["aaaa", *"cdef", "bbbb", "g"]
    assert list(taking_turns([], ["a", "b"])) == ["a", "b"]
