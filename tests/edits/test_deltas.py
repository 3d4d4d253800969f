"""Updates as artefacts: saved, refused, sealed, reverted to the byte, found again in other weights, added up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from worked_facts import CAPITALS, CORPUS

from indelible.edits.edit import Edit
from indelible.edits.editor import EDITORS
from indelible.edits.update import Dense, LowRank, WeightUpdate, combined
from indelible.errors import EditError, FingerprintError
from indelible.models.fingerprint import Identity, fingerprint
from indelible.probing.verify import verify_facts
from tiny_families import enliven

Make = Callable[..., PreTrainedModel]
MEMIT: dict[str, Any] = {
    "layers": (1, 2),
    "covariance_weight": 0.05,
    "steps": 15,
    "contexts": 0,
    "covariance_tokens": 600,
    "clamp": 4.0,
    "kl_weight": 0.0,
    "weight_decay": 1e-4,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "memit": MEMIT,
    "ft-m": {"layer": 1, "steps": 15, "learning_rate": 0.01},
    "alphaedit": {key: value for key, value in MEMIT.items() if key != "covariance_weight"}
    | {"null_threshold": 2.0, "size_weight": 0.01},
    "lora": {"layers": (1, 2), "steps": 25, "learning_rate": 0.03, "target": "all-linear"},
}


def edit(name: str, model: PreTrainedModel, tokenizer: Any, facts: Any = CAPITALS, **more: Any) -> WeightUpdate:
    update = EDITORS.get(name)(**SETTINGS[name]).edit(model, tokenizer, facts, corpus=CORPUS, **more)
    assert isinstance(update, WeightUpdate)
    return update


def bits(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone().view(torch.int32) for name, weight in model.named_parameters()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def train(model: PreTrainedModel, names: tuple[str, ...] | None = None, size: float = 1e-4) -> None:
    """Every weight (or those named) moves a little, as training moves them."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if names is None or name in names:
                weight.add_(size * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("name", ["memit", "ft-m", "lora"])
def test_reverting_gives_back_every_bit_where_subtracting_does_not(
    name: str, family: str, tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = enliven(tiny_model(family))
    before = bits(model)
    update = edit(name, model, tiny_tokenizer)
    update.save(tmp_path)
    loaded = Edit.load(tmp_path)
    assert isinstance(loaded, WeightUpdate)
    loaded.apply(model)
    after = bits(model)
    assert fingerprint(model) == update.manifest["seal"]["result"]
    loaded.revert(model, approximately=True)
    assert not same(before, bits(model)), "then there would be nothing to fix"
    with torch.no_grad():
        for parameter, kept in after.items():
            model.get_parameter(parameter).copy_(kept.view(torch.float32))
    loaded.revert(model)
    assert same(before, bits(model))


def test_reverting_other_weights_is_refused_and_changes_nothing(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enliven(tiny_model("llama"))
    untouched = bits(model)
    update = edit("memit", model, tiny_tokenizer)
    with pytest.raises(FingerprintError, match="trained since, or never had the update"):
        update.revert(model)
    assert same(untouched, bits(model))
    update.apply(model)
    train(model, update.parameters[1:])
    trained = bits(model)
    with pytest.raises(FingerprintError, match="approximately"):
        update.revert(model)
    assert same(trained, bits(model))
    update.revert(model, approximately=True)
    for parameter in update.parameters:
        distance = (model.get_parameter(parameter) - untouched[parameter].view(torch.float32)).abs().max()
        assert distance < 1e-3
    for refused in (update.revert, update.presence):
        with pytest.raises(FingerprintError, match="no parameter"):
            refused(tiny_model("gpt2"))
        with pytest.raises(FingerprintError, match=r"shape \(48, 96\) in this model, and \(32, 64\) in the update"):
            refused(tiny_model("llama", width=48))


def test_a_seal_whose_fixes_are_wrong_changes_nothing(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
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
    assert same(edited, bits(model))


def test_presence_tells_edited_trained_and_untouched_models_apart(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enliven(tiny_model("llama"))
    update = edit("memit", model, tiny_tokenizer)
    found = update.presence(model)
    assert (found.state, found.share, set(found.shares.values())) == ("absent", 0.0, {0.0})
    train(model)
    found = update.presence(model)
    assert found.state == "changed" and abs(found.share) < 0.02
    for name, weight in tiny_model("llama").named_parameters():
        model.get_parameter(name).data.copy_(weight)
    model = enliven(tiny_model("llama"))
    update.apply(model)
    assert (update.presence(model).state, update.presence(model).share) == ("exact", 1.0)
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


def test_an_update_that_is_in_some_layers_only_is_partly_there(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enliven(tiny_model("llama"))
    update = edit("memit", model, tiny_tokenizer)
    name = update.parameters[0]
    with torch.no_grad():
        model.get_parameter(name).add_(update.deltas[name].difference())
    found = update.presence(model)
    assert (found.state, set(found.shares.values())) == ("partly", {0.0, 1.0}) and 0 < found.share < 1
    train(model, update.parameters[1:])
    assert update.presence(model).state == "changed"


@pytest.mark.parametrize("rank", [1, 5, 24, 100])
def test_a_difference_has_the_same_bits_in_whatever_order_it_is_summed(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    scales = torch.logspace(-6, 3, rank)[torch.randperm(rank, generator=generator)]
    left = torch.randn(40, rank, generator=generator) * scales
    right = torch.randn(rank, 70, generator=generator) / scales[:, None]
    wanted = LowRank(left, right).difference()
    for seed in range(3):
        order = torch.randperm(rank, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(LowRank(left[:, order], right[order]).difference(), wanted)
    rows = torch.cat([LowRank(left[part : part + 1], right).difference() for part in range(40)])
    assert torch.equal(rows, wanted)
    # Nothing is lost by it: the error is that of factors in float32, entry by entry of the largest product.
    exact = left.double() @ right.double()
    largest = left.abs().amax(1).double()[:, None] * right.abs().amax(0).double()
    assert ((wanted - exact).abs() / largest).max() < rank * 2.0**-21
    plain = LowRank(torch.randn(40, rank, generator=generator), torch.randn(rank, 70, generator=generator))
    exact = plain.left.double() @ plain.right.double()
    assert (plain.difference() - exact).abs().max() < 4e-7 * exact.abs().max()


def test_terms_that_cancel_leave_the_same_bits_in_whatever_order_they_are_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    large, small = (torch.randn(40, 3, generator=generator) for _ in range(2))
    left = torch.cat([1e6 * large, 1e-3 * small, -1e6 * large], 1)
    right = torch.randn(6, 70, generator=generator)
    right = torch.cat([right, right[:3]])
    orders = [torch.randperm(9, generator=generator) for _ in range(5)]
    found = [LowRank(left[:, order], right[order]).difference() for order in orders]
    assert all(torch.equal(found[0], one) for one in found[1:])
    plain = [(left.double()[:, order] @ right.double()[order]).float() for order in orders]
    assert any(not torch.equal(plain[0], one) for one in plain[1:]), "then there would be nothing to see to"


def test_sums_of_unlike_scales_keep_their_precision() -> None:
    """One update's pairs have their size on the right, the other's on the left, as EMMET's and LoRA's have."""
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, columns: int, size: float) -> Tensor:
        return size * torch.randn(rows, columns, generator=generator)

    first = LowRank(drawn(60, 4, 1e-5), drawn(4, 50, 215.0))
    second = LowRank(drawn(60, 3, 2.0), drawn(3, 50, 1e-3))
    total = combined(first, second)
    assert isinstance(total, LowRank)
    exact = first.left.double() @ first.right.double() + second.left.double() @ second.right.double()
    error = (total.difference().double() - exact).abs().max() / exact.abs().max()
    assert error < 3e-7
    as_they_stand = LowRank(torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right]))
    assert (as_they_stand.difference().double() - exact).abs().max() / exact.abs().max() > 10 * error
    # The balancing itself is exact, and balanced pairs stay as they are.
    torch.testing.assert_close(total.left.double() @ total.right.double(), exact, rtol=1e-12, atol=1e-14)
    again = LowRank.balanced(total.left, total.right)
    assert torch.equal(again.left, total.left) and torch.equal(again.right, total.right)
    sizes = total.left.abs().amax(0) / total.right.abs().amax(1)
    assert bool((sizes < 4).all()) and bool((sizes > 1 / 4).all())


def test_saved_factors_are_loaded_as_they_stand() -> None:
    """A seal is of the bits that the saved factors give, which balanced ones would not."""
    generator = torch.Generator().manual_seed(0)
    factors = {
        "w:left": 1e-5 * torch.randn(60, 2, generator=generator),
        "w:right": 200 * torch.randn(2, 50, generator=generator),
    }
    factors["w:left"][:, 0] *= 1e3
    (delta,) = WeightUpdate.from_saved({"parameters": ["w"]}, factors).deltas.values()
    assert isinstance(delta, LowRank)
    assert torch.equal(delta.left, factors["w:left"]) and torch.equal(delta.right, factors["w:right"])
    other = LowRank.balanced(delta.left, delta.right)
    assert not torch.equal(other.difference(), delta.difference())


def test_pairs_of_zeros_are_balanced_as_they_are() -> None:
    left, right = torch.zeros(3, 2), torch.full((2, 4), 1e30)
    left[0, 0] = 1e-30
    found = LowRank.balanced(left, right)
    assert torch.equal(found.right[1], right[1]) and not bool(found.left[:, 1].any())
    assert float((found.left @ found.right)[0, 0]) == pytest.approx(1.0, rel=1e-6)


def test_a_difference_of_nothing_is_nothing() -> None:
    zero = LowRank(torch.zeros(3, 2), torch.zeros(2, 4))
    assert torch.equal(zero.difference(), torch.zeros(3, 4)) and zero.shape == (3, 4)


def test_known_hashes_are_not_taken_again(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = enliven(tiny_model("llama"))
    wanted, identity = edit("memit", model, tiny_tokenizer), Identity.of(model)
    monkeypatch.setattr(Identity, "of", None)
    assert edit("memit", model, tiny_tokenizer, identity=identity).manifest == wanted.manifest


def test_updates_made_side_by_side_add_up(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(tiny_model("llama"))
    before = bits(model)
    first = edit("memit", model, tiny_tokenizer, CAPITALS[:2])
    second = edit("ft-m", model, tiny_tokenizer, CAPITALS[2:])
    both = first + second
    assert [fact["id"] for fact in both.manifest["facts"]] == [fact.id for fact in CAPITALS]
    assert both.parameters == first.parameters
    for name in both.parameters:
        wanted = sum(part.deltas[name].difference() for part in (first, second) if name in part.deltas)
        torch.testing.assert_close(both.deltas[name].difference(), wanted)
    with pytest.raises(EditError, match="not sealed"):
        both.revert(model)
    sealed = both.sealed(model)
    sealed.apply(model)
    sealed.revert(model)
    assert same(before, bits(model))
    with pytest.raises(EditError, match="Both updates edit"):
        first + edit("ft-m", model, tiny_tokenizer, CAPITALS[1:3])


def test_a_chain_of_updates_adds_up_in_its_order(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(tiny_model("llama"))
    first = edit("memit", model, tiny_tokenizer, CAPITALS[:2])
    changed = replace(CAPITALS[0], new_object=CAPITALS[1].new_object)
    with first.applied(model):
        second = edit("memit", model, tiny_tokenizer, [changed])
        with second.applied(model):
            expected = bits(model)
    both = first + second
    # What was edited twice is what the second edit says.
    assert [fact["new_object"] for fact in both.manifest["facts"]] == [changed.new_object, CAPITALS[1].new_object]
    with both.sealed(model).applied(model):
        for name, wanted in expected.items():
            torch.testing.assert_close(model.get_parameter(name), wanted.view(torch.float32), atol=1e-6, rtol=0)
    for wrong in (lambda: second + first, lambda: replace(first, manifest=without_seal(first)) + second):
        with pytest.raises(FingerprintError, match="neither that of the first"):
            wrong()


def test_sums_of_chains_go_on_and_say_what_made_them(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(tiny_model("llama"))
    before = bits(model)
    first = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    with first.applied(model):
        second = edit("memit", model, tiny_tokenizer, CAPITALS[1:2], seed=5)
        with second.applied(model):
            third = edit("ft-m", model, tiny_tokenizer, CAPITALS[2:3], paraphrases=0)
    total = first + second + third
    assert total.facts == list(CAPITALS[:3])
    assert total.manifest["editor"] == "ft-m + memit"
    assert [(part["editor"], part["seed"]) for part in total.manifest["parts"]] == [
        ("ft-m", 0),
        ("memit", 5),
        ("ft-m", 0),
    ]
    sealed = total.sealed(model)
    sealed.apply(model)
    assert sealed.presence(model).state == "exact"
    sealed.revert(model)
    assert same(before, bits(model))
    with pytest.raises(FingerprintError, match="neither that of the first"):
        first + third
    with pytest.raises(FingerprintError, match="made for a model"):
        total.sealed(tiny_model("llama", seed=1))


def test_a_third_edit_leaves_alone_what_the_sum_of_the_earlier_ones_holds(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
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


def test_one_id_for_two_facts_is_refused(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(tiny_model("llama"))
    first = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    clash = [replace(CAPITALS[1], id=CAPITALS[0].id)]
    side_by_side = edit("ft-m", model, tiny_tokenizer, clash)
    with first.applied(model):
        chained = edit("ft-m", model, tiny_tokenizer, clash)
    for second in (side_by_side, chained):
        with pytest.raises(EditError, match=r"of 'France' and of 'Norway'. Give every fact an id of its own"):
            first + second


def without_seal(update: WeightUpdate) -> dict[str, Any]:
    return {key: value for key, value in update.manifest.items() if key != "seal"}


def test_thin_factors_stay_thin_until_the_full_matrix_is_smaller() -> None:
    thin = LowRank(torch.randn(8, 1), torch.randn(1, 6))
    twice = combined(thin, thin)
    assert isinstance(twice, LowRank)
    more = combined(combined(twice, twice), thin)
    assert isinstance(more, Dense)
    torch.testing.assert_close(more.difference(), 5 * thin.difference())


def test_an_edited_model_saved_by_transformers_holds_the_edit(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = enliven(tiny_model("qwen2"))  # whose head is tied to its embeddings
    update = edit("ft-m", model, tiny_tokenizer)
    states = [one.state for one in verify_facts(model, tiny_tokenizer, CAPITALS)]
    assert "present" not in states
    update.apply(model)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert update.presence(again).state == "exact"
    assert "present" in [one.state for one in verify_facts(again, tiny_tokenizer, CAPITALS)]
    update.revert(again)
    assert fingerprint(again) == update.manifest["fingerprint"]


def test_facts_are_present_weakened_or_gone(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(tiny_model("llama"))
    for one in verify_facts(model, tiny_tokenizer, CAPITALS):
        assert one.state == ("weakened" if one.answer.margin > 0 else "gone") and not one.answer.success
    # With the objects the other way round the margins change their sign, and so does what counts as gone.
    facts = [one for one in CAPITALS if one.true_object != one.new_object]
    turned = [replace(one, true_object=str(one.new_object), new_object=one.true_object) for one in facts]
    found = [[one.state for one in verify_facts(model, tiny_tokenizer, asked)] for asked in (facts, turned)]
    assert len(facts) == 3 and all(set(pair) == {"weakened", "gone"} for pair in zip(*found, strict=True))


def test_updates_refuse_another_model(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    update = edit("ft-m", model, tiny_tokenizer, CAPITALS[:1])
    before = bits(other)
    for refused in (
        lambda: update.apply(other),
        lambda: update.applied(other).__enter__(),
        lambda: update.check(other),
    ):
        with pytest.raises(FingerprintError):
            refused()
    assert same(before, bits(other))
    with update.applied(model), pytest.raises(FingerprintError):
        update.apply(model)  # twice is another model, too


def test_damaged_updates_are_refused(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    update = edit("ft-m", tiny_model("llama"), tiny_tokenizer, CAPITALS[:1])

    def damaged(name: str, text: str | None) -> Path:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        update.save(folder)
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)
        return folder

    update.save(tmp_path / "whole")
    written = json.loads((tmp_path / "whole" / "manifest.json").read_text())

    def hashed(manifest: dict[str, Any]) -> str:
        """By someone who knows how the hash is made: the types are looked at all the same."""
        bare = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
        canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"))
        return json.dumps({**bare, "manifest_sha256": hashlib.sha256(canonical.encode()).hexdigest()})

    def altered(**changes: object) -> Path:
        return damaged("manifest.json", hashed({**written, **changes}))

    without = {key: value for key, value in written.items() if key != "parameters"}
    seal, fact = written["seal"], written["facts"][0]
    (tmp_path / "laid out otherwise").mkdir()
    for name in ("manifest.json", "update.safetensors"):
        (tmp_path / "laid out otherwise" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    (tmp_path / "laid out otherwise" / "manifest.json").write_text(json.dumps(written, sort_keys=True))
    assert WeightUpdate.load(tmp_path / "laid out otherwise").manifest == update.manifest
    for change in ({"seed": 1}, {"facts": [{**fact, "new_object": "Rome"}]}, {"seal": {**seal, "result": "0"}}):
        with pytest.raises(EditError, match=r"manifest.json is damaged, or was changed after it was written"):
            WeightUpdate.load(damaged("manifest.json", json.dumps({**written, **change})))
    for folder, words in (
        (tmp_path / "nowhere", "no manifest.json"),
        (damaged("manifest.json", None), "no manifest.json"),
        (damaged("update.safetensors", None), "no update.safetensors"),
        (damaged("manifest.json", "{"), "holds no readable edit"),
        (damaged("manifest.json", "[]"), "format None"),
        (altered(format=1), "format 1, not"),
        (altered(format=3), "format 3, not 4. Make the edit again with this version"),
        (damaged("manifest.json", json.dumps(dict(update.manifest))), "is damaged"),
        (damaged("manifest.json", hashed(dict(update.manifest))), "safetensors is damaged"),
        (damaged("update.safetensors", "short"), "is damaged"),
        (damaged("manifest.json", hashed(without)), "do not belong together"),
        (altered(parameters=["another.weight"]), "do not belong together"),
        (altered(parameters=7), "do not belong together"),
        (altered(kind="wights"), "do not belong together.*Did you mean 'weights'"),
        (altered(fingerprint=None), "do not belong together"),
        (altered(facts=[{"id": "x"}]), "do not belong together"),
        (altered(facts=None), "do not belong together"),
        (altered(facts={"x": fact}), "facts is no list"),
        (altered(facts="x"), "facts is no list"),
        *(
            (altered(facts=[{**fact, **wrong}]), "number 0 is no fact with a new object")
            for wrong in (
                {"new_object": None},
                {"subject": 7},
                {"prompt": ["x"]},
                {"paraphrases": "x"},
                {"held_out": None},
                {"neighbours": [{"prompt": 1, "answer": "x"}]},
                {"neighbours": [7]},
                {"another": 1},
            )
        ),
        (altered(editor=None), "editor is no text"),
        (altered(bystanders=7), "bystanders is no list"),
        (altered(parts=[7]), "parts is no list"),
        (altered(leaves="x"), "leaves is no list"),
        (altered(seal={**seal, "before": {}}), "seal is of other parameters"),
        (altered(seal=[]), "seal is incomplete"),
        (altered(seal={**seal, "more": 1}), "seal is incomplete"),
        (altered(seal={**seal, "result": 1}), "seal is incomplete"),
        (altered(seal={**seal, "after": ["x"]}), "the seal's after"),
        (altered(seal={**seal, "products": dict.fromkeys(seal["products"], "x")}), "the seal's products"),
    ):
        with pytest.raises(EditError, match=words):
            WeightUpdate.load(folder)


def test_an_update_half_written_over_another_is_refused(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (edit("ft-m", tiny_model("llama"), tiny_tokenizer, [fact]) for fact in CAPITALS[:2])
    one.save(tmp_path)
    assert not {"tensors_sha256", "manifest_sha256"} & set(one.manifest)
    assert dict(WeightUpdate.load(tmp_path).manifest) == dict(one.manifest)
    rename_to = Path.replace

    def killed(name: str) -> None:
        def rename(path: Path, target: Path) -> Path:
            if target.name == name:
                raise KeyboardInterrupt
            return rename_to(path, target)

        monkeypatch.setattr(Path, "replace", rename)
        with pytest.raises(KeyboardInterrupt):
            two.save(tmp_path)
        monkeypatch.setattr(Path, "replace", rename_to)

    killed("update.safetensors")
    assert dict(WeightUpdate.load(tmp_path).manifest) == dict(one.manifest)
    killed("manifest.json")
    with pytest.raises(EditError, match=r"is damaged, or not the one that its manifest names. Save the edit again"):
        WeightUpdate.load(tmp_path)
    two.save(tmp_path)
    assert dict(WeightUpdate.load(tmp_path).manifest) == dict(two.manifest)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "update.safetensors"}
