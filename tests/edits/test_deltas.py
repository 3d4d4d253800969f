"""Updates in a model: sealed, reverted to the byte, found again in other weights, and refused by other models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_edits import edit, train
from worked_facts import CAPITALS

from indelible.care.verify import verify_facts
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import Origin
from indelible.edits.deltas.origin import origin
from indelible.edits.deltas.weights import Dense, WeightUpdate
from indelible.errors import EditError, FingerprintError
from indelible.models.fingerprint import Identity, fingerprint
from tiny_families import enliven
from tiny_models import Make, Tokenizer
from untouched import assert_same, bits, changed, raw


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("name", ["memit", "ft-m", "lora"])
def test_reverting_gives_back_every_bit_where_subtracting_does_not(
    name: str, family: str, tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = enliven(tiny_model(family))
    before = bits(model)
    update = edit(name, model, tiny_tokenizer)
    update.save(tmp_path / "delta.safetensors")
    loaded = Edit.load(tmp_path / "delta")
    assert isinstance(loaded, WeightUpdate)
    loaded.apply(model)
    after = bits(model)
    assert fingerprint(model) == update.manifest.seal.result
    with torch.no_grad():
        for parameter, delta in loaded.deltas.items():
            model.get_parameter(parameter).sub_(delta.difference())
    assert changed(before, model), "then there would be nothing to fix"
    with torch.no_grad():
        for parameter in loaded.parameters:
            model.get_parameter(parameter).copy_(after[parameter])
    loaded.revert(model)
    assert_same(before, model)


def test_reverting_other_weights_is_refused_and_changes_nothing(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    untouched = bits(model)
    update = edit("memit", model, tiny_tokenizer)
    for approximately in (False, True):
        with pytest.raises(FingerprintError, match=r"The delta is not in this model: .* There is nothing to revert"):
            update.revert(model, approximately=approximately)
    assert_same(untouched, model)
    first = update.parameters[0]
    with torch.no_grad():
        model.get_parameter(first).add_(update.deltas[first].difference())
    half = bits(model)
    with pytest.raises(FingerprintError, match=f"only partly in this model: {update.parameters[1]} as before the edit"):
        update.revert(model)
    assert_same(half, model)
    update.revert(model, approximately=True)
    assert_same(untouched, model), "what the update is not in is left alone, the rest needs no approximation"
    update.apply(model)
    train(model, update.parameters[1:])
    trained = bits(model)
    with pytest.raises(FingerprintError, match=f"{update.parameters[1]} is not as this delta .* --approximately"):
        update.revert(model)
    assert_same(trained, model)
    update.revert(model, approximately=True)
    assert torch.equal(raw(model.get_parameter(first).detach()), raw(untouched[first]))
    for parameter in update.parameters:
        distance = (model.get_parameter(parameter) - untouched[parameter]).abs().max()
        assert distance < 1e-3
    for refused in (update.revert, update.presence):
        with pytest.raises(FingerprintError, match="no parameter"):
            refused(tiny_model("gpt2"))
        with pytest.raises(FingerprintError, match=r"shape \(48, 96\) in this model, and \(32, 64\) in the update"):
            refused(tiny_model("llama", width=48))


def test_a_seal_whose_fixes_are_wrong_changes_nothing(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    update = edit("memit", model, tiny_tokenizer)
    update.apply(model)
    edited = bits(model)
    name = update.parameters[-1]
    wrong = replace(
        update, fixes={**update.fixes, name: replace(update.fixes[name], values=update.fixes[name].values + 1)}
    )
    with pytest.raises(EditError, match="does not give back its bytes"):
        wrong.revert(model)
    assert_same(edited, model)


def test_presence_tells_edited_trained_and_untouched_models_apart(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    update = edit("memit", model, tiny_tokenizer)
    found = update.presence(model)
    assert (found.state, found.share, set(found.shares.values())) == ("absent", 0.0, {0.0})
    train(model)
    found = update.presence(model)
    assert found.state == "changed" and abs(found.share) < 0.02
    model = enliven(tiny_model("llama"))
    first, second = update.parameters
    with torch.no_grad():
        for name, state, shares in ((first, "partly", {0.0, 1.0}), (second, "exact", {1.0})):
            model.get_parameter(name).add_(update.deltas[name].difference())
            found = update.presence(model)
            assert (found.state, set(found.shares.values())) == (state, shares)
            assert 0 < found.share < 1 or found.share == len(shares) == 1
    train(model)
    found = update.presence(model)
    assert found.state == "changed" and abs(found.share - 1) < 0.02
    # Half of one parameter's difference is taken out again: the shares say so, parameter by parameter.
    name = update.parameters[0]
    with torch.no_grad():
        model.get_parameter(name).sub_(0.5 * update.deltas[name].difference())
    found = update.presence(model)
    assert abs(found.shares[name] - 0.5) < 0.02 and abs(found.shares[update.parameters[1]] - 1) < 0.02
    assert 0.5 < found.share < 1


def test_known_hashes_are_not_taken_again(
    tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = enliven(tiny_model("llama"))
    wanted, identity = edit("memit", model, tiny_tokenizer), Identity.of(model)
    monkeypatch.setattr(Identity, "of", None)
    assert edit("memit", model, tiny_tokenizer, identity=identity).manifest == wanted.manifest


def test_facts_are_present_weakened_or_gone(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    for one in verify_facts(model, tiny_tokenizer, CAPITALS):
        assert one.state == ("weakened" if one.answer.margin > 0 else "gone") and not one.answer.success
    # With the objects the other way round the margins change their sign, and so does what counts as gone.
    facts = [one for one in CAPITALS if one.true_object != one.new_object]
    turned = [replace(one, true_object=str(one.new_object), new_object=one.true_object) for one in facts]
    found = [[one.state for one in verify_facts(model, tiny_tokenizer, asked)] for asked in (facts, turned)]
    assert len(facts) == 3 and all(set(pair) == {"weakened", "gone"} for pair in zip(*found, strict=True))


def test_a_refusal_names_both_models(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model, trained, gpt2 = tiny_model("llama"), tiny_model("llama", seed=1), tiny_model("gpt2")
    model.name_or_path = "someone/some-llama"
    trained.name_or_path = "/home/me/models/tuned/"
    gpt2.name_or_path = "./models/gpt2"
    update = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    assert update.manifest.model == Origin(name="someone/some-llama", architecture="LlamaForCausalLM")
    base, other = fingerprint(model)[:12], fingerprint(trained)[:12]
    for refused, words in (
        (
            trained,
            rf"made for someone/some-llama \(LlamaForCausalLM\) with fingerprint {base}, not for tuned"
            rf" \(LlamaForCausalLM\) with fingerprint {other}. Give that checkpoint itself",
        ),
        (
            gpt2,
            r"made for someone/some-llama \(LlamaForCausalLM\), not for gpt2 \(GPT2LMHeadModel\). Give the model that",
        ),
        (model.to(torch.bfloat16), r"loaded in torch.bfloat16: load it in float32"),
    ):
        with pytest.raises(FingerprintError, match=words):
            update.apply(refused)
        with pytest.raises(FingerprintError, match=words), update.applied(refused):
            pass
    again = tiny_model("llama")
    update.apply(again)
    edited = bits(again)
    with pytest.raises(FingerprintError, match=r"\(LlamaForCausalLM\) already. There is nothing"):
        update.apply(again)
    assert_same(edited, again)


@pytest.mark.parametrize("source", [".", "folder", "folder/", "other/../folder"])
def test_a_folder_is_named_by_its_last_component(
    source: str, tiny_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "folder" if source == "." else tmp_path)
    model = tiny_model("llama")
    for given in (source, str(tmp_path / source) if source != "." else source):
        model.name_or_path = given
        assert origin(model) == Origin(name="folder", architecture="LlamaForCausalLM")


def test_a_difference_that_is_not_finite_is_no_update(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    before = bits(model)
    update = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    (name,) = update.parameters
    infinite = replace(update, deltas={name: Dense(torch.full(update.deltas[name].shape, torch.inf))})
    with pytest.raises(EditError, match=f"The difference of {name} is not finite"):
        infinite.sealed(model)
    assert_same(before, model)
