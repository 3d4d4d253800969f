"""Updates added up: made side by side or one after the other, and what cannot be added."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_edits import edit
from torch import Tensor
from worked_facts import CAPITALS

from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import EditError, FingerprintError
from tiny_families import enliven
from tiny_models import Make, Tokenizer
from untouched import assert_same, bits


def test_updates_made_side_by_side_add_up(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    before = bits(model)
    first = edit("memit", model, tiny_tokenizer, CAPITALS[:2])
    second = edit("ft-m", model, tiny_tokenizer, CAPITALS[2:])
    both = first + second
    assert [fact.id for fact in both.facts] == [fact.id for fact in CAPITALS]
    assert both.parameters == first.parameters
    for name in both.parameters:
        wanted = sum(part.deltas[name].difference() for part in (first, second) if name in part.deltas)
        torch.testing.assert_close(both.deltas[name].difference(), wanted)
    with pytest.raises(EditError, match="not sealed"):
        both.revert(model)
    sealed = both.sealed(model)
    sealed.apply(model)
    sealed.revert(model)
    assert_same(before, model)
    with pytest.raises(EditError, match="Both updates edit"):
        first + edit("ft-m", model, tiny_tokenizer, CAPITALS[1:3])


def test_a_chain_of_updates_adds_up_in_its_order(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    first = edit("memit", model, tiny_tokenizer, CAPITALS[:2])
    changed = replace(CAPITALS[0], new_object=CAPITALS[1].new_object)
    with first.applied(model):
        second = edit("memit", model, tiny_tokenizer, [changed])
        with second.applied(model):
            expected = bits(model)
    both = first + second
    # What was edited twice is what the second edit says.
    assert [fact.new_object for fact in both.facts] == [changed.new_object, CAPITALS[1].new_object]
    with both.sealed(model).applied(model):
        for name in both.parameters:
            torch.testing.assert_close(model.get_parameter(name).detach(), expected[name], atol=1e-6, rtol=0)
    for wrong in (lambda: second + first, lambda: replace(first, manifest=first.manifest.but(seal=None)) + second):
        with pytest.raises(FingerprintError, match="neither that of the first"):
            wrong()


def test_sums_of_chains_go_on_and_say_what_made_them(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    before = bits(model)
    first = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    with first.applied(model):
        second = edit("memit", model, tiny_tokenizer, CAPITALS[1:2], seed=5)
        with second.applied(model):
            third = edit("ft-m", model, tiny_tokenizer, CAPITALS[2:3], paraphrases=0)
    total = first + second + third
    assert total.facts == list(CAPITALS[:3])
    assert total.manifest.editor == "ft-m + memit"
    assert [(made.editor, made.seed) for made in total.manifest.made] == [("ft-m", 0), ("memit", 5), ("ft-m", 0)]
    sealed = total.sealed(model)
    sealed.apply(model)
    assert sealed.presence(model).state == "exact"
    sealed.revert(model)
    assert_same(before, model)
    with pytest.raises(FingerprintError, match="neither that of the first"):
        first + third
    with pytest.raises(FingerprintError, match="made for a model"):
        total.sealed(tiny_model("llama", seed=1))


def test_a_third_edit_leaves_alone_what_the_sum_of_the_earlier_ones_holds(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model("llama"))
    first = edit("alphaedit", model, tiny_tokenizer, CAPITALS[:1])
    with first.applied(model):
        second = edit("alphaedit", model, tiny_tokenizer, CAPITALS[1:2], earlier=first)
        both = first + second
        with second.applied(model):
            right, latest_only = (
                edit("alphaedit", model, tiny_tokenizer, CAPITALS[2:3], earlier=earlier) for earlier in (both, second)
            )
    for name, keys in first.keys.items():
        assert second.keys[name].shape == keys.shape, "an update holds its own keys, so that sums hold each once"
        assert torch.equal(both.keys[name], torch.cat([keys, second.keys[name]], dim=1))

        def moved(update: WeightUpdate, name: str = name, keys: Tensor = keys) -> float:
            """What an update does to the values of the first fact, in parts of what making them took."""
            return float(
                (update.deltas[name].difference() @ keys).norm() / (first.deltas[name].difference() @ keys).norm()
            )

        assert moved(right) < 0.2 * moved(latest_only), (moved(right), moved(latest_only))


def test_a_sum_says_how_each_fact_was_answered_under_its_own_edit(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    model.name_or_path = "someone/some-llama"
    ids = [fact.id for fact in CAPITALS[:3]]
    first = edit("memit", model, tiny_tokenizer, CAPITALS[:2])
    assert first.answered == {}
    first = first.with_answers({ids[0]: "present", ids[1]: "gone", "of no fact": "present"})
    assert first.answered == {ids[0]: "present", ids[1]: "gone"}
    second = edit("ft-m", model, tiny_tokenizer, CAPITALS[2:3]).with_answers({ids[2]: "weakened"})
    with first.applied(model):
        unasked = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    total = (first + second).sealed(model)
    assert total.answered == {ids[0]: "present", ids[1]: "gone", ids[2]: "weakened"}
    assert (first + unasked).answered == {ids[1]: "gone"}, "what was edited again was answered under another edit"
    assert set(total.manifest.arrived) == set(ids[:2]), "fine-tuning wants no change of a value"
    assert set((first + unasked).manifest.arrived) == {ids[1]}
    assert total.manifest.model == first.manifest.model


def test_one_id_for_two_facts_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    first = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    relation = CAPITALS[0].relation
    for clash, words in (
        (replace(CAPITALS[1], id=CAPITALS[0].id), rf"of 'France' \({relation}\) and of 'Norway' \(.*\)"),
        # As files of one name make it, whose first rows are of one subject.
        (replace(CAPITALS[0], relation="tongue"), rf"of 'France' \({relation}\) and of 'France' \(tongue\)"),
    ):
        side_by_side = edit("ft-m", model, tiny_tokenizer, [clash])
        with first.applied(model):
            chained = edit("ft-m", model, tiny_tokenizer, [clash])
        for second in (side_by_side, chained):
            with pytest.raises(EditError, match=rf"{words}. Give every fact an id of its own"):
                first + second
