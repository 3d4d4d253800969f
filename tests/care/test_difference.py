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
from indelible.care.difference import STANDS_OUT, diff
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
    assert len(found.frame()) == len(found.matrices)
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
