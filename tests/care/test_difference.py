"""What lies between two checkpoints is told apart: nothing, training, an edit, both, or training of one place."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import indelible
from indelible.care.weights.difference import STANDS_OUT, diff
from indelible.care.weights.spectrum import share_of_one_direction, spectrum
from indelible.cli.main import main
from indelible.errors import ModelError
from indelible.models.load import LoadedModel
from tiny_models import build_model, build_tokenizer

LAYERS = 6
EDITED = (2, 3)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest) -> LoadedModel:
    tokenizer = build_tokenizer()
    return LoadedModel(build_model(request.param, len(tokenizer), layers=LAYERS), tokenizer, request.param)


@pytest.fixture
def other(base: LoadedModel) -> LoadedModel:
    return LoadedModel(copy.deepcopy(base.model), base.tokenizer, base.name)


def train(model: PreTrainedModel) -> None:
    """Move all weights about equally far, in all directions and most in a few, as training does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(2e-3 * torch.randn(weight.shape, generator=generator))
            if weight.dim() == 2:
                first, second = (torch.randn(size, generator=generator) for size in weight.shape)
                weight.add_(0.02 * torch.outer(first / first.norm(), second / second.norm()))


def memories(model: PreTrainedModel) -> Iterator[tuple[int, torch.nn.Parameter]]:
    ends = ("mlp.down_proj.weight", "mlp.c_proj.weight")
    for name, weight in model.named_parameters():
        if name.endswith(ends):
            yield int(name.split(".")[2]), weight


def edit(model: PreTrainedModel, facts: int) -> None:
    """Add as many directions as facts to the memories of some layers."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer, weight in memories(model):
            if layer in EDITED:
                sides = [torch.linalg.qr(torch.randn(size, facts, generator=generator))[0] for size in weight.shape]
                weight.add_(2.0 * sides[0] @ sides[1].T)


def test_training_is_no_edit(base: LoadedModel, other: LoadedModel) -> None:
    assert diff(base, other).verdict == "same"
    train(other.model)
    found = diff(base, other)
    assert found.verdict == "alike" and "No edit stands out" in found.in_words
    exact = {
        name: float(torch.linalg.matrix_norm((weight - base.model.get_parameter(name)).detach(), 2))
        for name, weight in other.model.named_parameters()
        if name in {one.parameter for one in found.matrices}
    }
    for row in found.matrices:
        assert row.top == pytest.approx(exact[row.parameter], rel=0.02), row.parameter


@pytest.mark.parametrize("facts", [1, 3])
@pytest.mark.parametrize("trained", [False, True])
def test_an_edit_is_found_without_facts(base: LoadedModel, other: LoadedModel, facts: int, trained: bool) -> None:
    edit(other.model, facts)
    if trained:
        train(other.model)
    found = diff(base, other)
    assert (found.verdict, found.layers) == ("edit", list(EDITED))
    assert [one.directions for one in found.standing_out] == [facts] * len(EDITED)
    assert len({one.kind for one in found.standing_out}) == 1
    assert len(found.to_frame()) == len(found.matrices)
    assert f"in {facts} direction" in found.in_words and "layers 2, 3" in found.in_words
    assert ("others of its kind did not" in found.in_words) is not trained


def test_training_of_one_place_is_not_called_an_edit(base: LoadedModel, other: LoadedModel) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer, weight in memories(other.model):
            if layer == 4:
                weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
    found = diff(base, other)
    assert (found.verdict, found.layers) == ("local", [4])
    assert "trained there alone, or edited by gradient" in found.in_words


def test_one_checkpoint_shows_a_strong_edit_of_one_fact_and_says_that_it_may_hide_others(other: LoadedModel) -> None:
    found = spectrum(other)
    assert not found.layers and "does not say that there is no edit" in found.in_words
    layer, weight = next(one for one in memories(other.model) if one[0] in EDITED)
    with torch.no_grad():
        weight.add_(2.0 * torch.outer(*(torch.ones(size) / size**0.5 for size in weight.shape)))
    found = spectrum(other)
    assert found.layers == [layer] and f"Layer {layer} stands out" in found.in_words
    assert len(found.to_frame()) == LAYERS == len(found.record()["rows"])


def test_the_share_of_one_direction_is_that_of_the_first_singular_value() -> None:
    rows = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.linspace(2, 0.1, 30))
    scaled = rows / rows.norm(dim=1, keepdim=True)
    assert share_of_one_direction(rows) == pytest.approx(float(torch.linalg.svdvals(scaled)[0]) ** 2 / 20, rel=0.01)
    assert share_of_one_direction(torch.zeros(3, 4)) == 0


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_an_edit_stored_in_half_precision_is_no_training(
    base: LoadedModel, other: LoadedModel, precision: torch.dtype
) -> None:
    """What rounding leaves of a difference of rank one has every direction."""
    before = LoadedModel(copy.deepcopy(base.model).to(precision).float(), base.tokenizer, "before")
    after = LoadedModel(copy.deepcopy(before.model), base.tokenizer, "after")
    edit(after.model, 1)
    after.model.to(precision).float()
    found = diff(before, after)
    assert (found.verdict, found.layers) == ("edit", list(EDITED))
    assert [one.directions for one in found.standing_out] == [1] * len(EDITED)
    assert "An edit, or an adapter that was trained there alone, in layers 2, 3" in found.in_words


def test_rounding_of_one_matrix_is_no_edit(base: LoadedModel, other: LoadedModel) -> None:
    weight = next(weight for layer, weight in memories(other.model) if layer == 4)
    with torch.no_grad():
        weight.add_(0.01).sub_(0.01)
    found = diff(base, other)
    assert found.verdict == "alike" and sum(one.moved > 0 for one in found.matrices) == 1
    with torch.no_grad():
        weight.copy_(next(old for layer, old in memories(base.model) if layer == 4)).view(-1)[:9] = 1e-30
    zero = LoadedModel(copy.deepcopy(other.model), base.tokenizer, "zero")
    with torch.no_grad():
        next(old for layer, old in memories(zero.model) if layer == 4).view(-1)[:9] = 0.0
    assert diff(zero, other).verdict == "alike", "so little that its squares are nothing"


@pytest.mark.parametrize("edited", [False, True])
def test_weight_decay_of_a_large_matrix_is_no_edit(base: LoadedModel, other: LoadedModel, edited: bool) -> None:
    """Some models have a direction in one layer that is far larger than all others."""
    large = LoadedModel(copy.deepcopy(base.model), base.tokenizer, "large")
    with torch.no_grad():
        weight = next(weight for layer, weight in memories(large.model) if layer == 1)
        weight.add_(torch.outer(*(torch.ones(size) / size**0.5 for size in weight.shape)), alpha=30.0)
    after = LoadedModel(copy.deepcopy(large.model), base.tokenizer, "after")
    if edited:
        edit(after.model, 1)
    with torch.no_grad():
        for one in after.model.parameters():
            one.mul_(0.99)
    found = diff(large, after)
    assert (found.verdict, found.layers) == (("edit", list(EDITED)) if edited else ("alike", []))


def test_no_more_is_said_than_was_compared(base: LoadedModel, other: LoadedModel) -> None:
    with torch.no_grad():
        other.model.get_input_embeddings().weight.add_(1.0)
    found = diff(base, other)
    assert found.verdict == "alike" and "no matrix in a layer moved; " in found.in_words
    few = build_model(base.name, len(base.tokenizer), layers=3)
    edited = copy.deepcopy(few)
    edit(edited, 1)
    found = diff(LoadedModel(few, base.tokenizer, "few"), LoadedModel(edited, base.tokenizer, "edited"))
    assert found.verdict == "unknown" and "cannot be told" in found.in_words
    more = copy.deepcopy(base.model)
    more.resize_token_embeddings(len(base.tokenizer) + 8)
    found = diff(base, LoadedModel(more, base.tokenizer, "more"))
    assert found.unlike and found.in_words == "What both have is the same."


def test_upper_half_trained_is_not_said_to_have_moved_like_the_lower(base: LoadedModel, other: LoadedModel) -> None:
    train(other.model)
    with torch.no_grad():
        for name, weight in other.model.named_parameters():
            if any(f".{layer}." in name for layer in range(LAYERS // 2)):
                weight.copy_(base.model.get_parameter(name))
    found = diff(base, other)
    assert found.verdict == "alike" and "all layers" not in found.in_words


def test_weights_that_are_not_finite_are_named(base: LoadedModel, other: LoadedModel) -> None:
    for model in (base.model, other.model):
        model.register_parameter("scale", torch.nn.Parameter(torch.tensor(1.0)))
    try:
        assert diff(base, other).verdict == "same", "a parameter of no dimension"
        layer, weight = next(memories(other.model))
        for value in ("nan", "inf"):
            with torch.no_grad():
                weight[0, 0] = float(value)
            found = diff(base, other)
            assert found.verdict == "broken" and found.in_words.endswith(f"{found.broken[0]}.")
            assert len(found.broken) == 1 and f".{layer}." in found.broken[0]
            json.dumps(found.record(), allow_nan=False)
    finally:
        del base.model.scale


def test_models_of_another_kind_are_refused(base: LoadedModel) -> None:
    alien = build_model("gpt_neox", len(base.tokenizer), layers=2, width=16)
    with pytest.raises(ModelError, match="no parameter in common"):
        diff(base, LoadedModel(alien, base.tokenizer, "gpt_neox"))


def test_the_command_says_it(
    base: LoadedModel, other: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(other.model, 1)
    train(other.model)
    for name, loaded in (("before", base), ("after", other)):
        loaded.model.save_pretrained(tmp_path / name)
        loaded.tokenizer.save_pretrained(tmp_path / name)
    assert main(["diff", str(tmp_path / "before"), str(tmp_path / "after")]) == 0
    assert "An edit in layers 2, 3" in capsys.readouterr().out
    assert main(["diff", str(tmp_path / "before"), str(tmp_path / "after"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"] == list(EDITED) and told["verdict"] == "edit"
    assert all(row["times"] < STANDS_OUT for row in told["matrices"] if row["layer"] not in EDITED)
    assert indelible.diff is diff
