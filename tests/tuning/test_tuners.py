"""Tuners: what is frozen keeps its bits, what is merged says what the adapters said, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from indelible.errors import ConfigError, UnknownNameError
from indelible.models.layout import find_layout
from indelible.tuning.freeze import frozen_parameters
from indelible.tuning.settings import TuningSettings
from indelible.tuning.tuners import TunerSettings, adapted, check_tuner
from tiny_models import FAMILIES

Models = Callable[..., PreTrainedModel]

TUNERS = ["full", "lora", "dora", "loha", "ia3", "ln_tuning"]
MASKS = [
    "none",
    "edited-weights",
    "edited-layers",
    "edited-layers:1+embeddings+head",
    "up-to-edited",
    "from-edited",
    "only-edited",
    "norms",
]
TOKENS = torch.arange(5, 45).view(4, 10)


def trained(model: PreTrainedModel, tuner: str, frozen: frozenset[str]) -> tuple[torch.Tensor, list[float]]:
    """What the tuned model says with adapters in place, just before they are merged, and its losses on the way."""
    losses = []
    torch.manual_seed(0)
    with adapted(model, TunerSettings(tuner=tuner, rank=2), frozen) as tuned:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert tuned.n_trained == sum(parameter.numel() for parameter in parameters) > 0
        optimiser = torch.optim.AdamW(parameters, lr=3e-3)
        for _ in range(4):
            loss = model(TOKENS, labels=TOKENS).loss
            losses.append(loss.item())
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            said = model(TOKENS).logits
    return said, losses


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("tuner", TUNERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_frozen_keeps_every_bit_and_the_rest_learns(
    family: str, tuner: str, mask: str, tiny_model: Models
) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    edited = [layout.mlp_out_weight[1]]
    frozen = frozen_parameters(mask, model, layout, edited)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = {path: type(module) for path, module in model.named_modules()}
    nothing_left = tuner == "ln_tuning" and mask == "norms"
    if nothing_left:
        with pytest.raises(ConfigError, match="frozen"):
            trained(model, tuner, frozen)
        return
    if tuner == "loha" and family == "gpt2":
        with pytest.raises(ConfigError, match="Conv1D"):
            trained(model, tuner, frozen)
        return
    said, losses = trained(model, tuner, frozen)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert {path: type(module) for path, module in model.named_modules()} == modules
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed and not changed & frozen
    assert losses[-1] < losses[0]
    if edited[0] not in frozen and tuner != "ln_tuning":
        assert edited[0] in changed
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, said, rtol=1e-4, atol=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_failure_takes_adapters_out_without_merging(tuner: str, tiny_model: Models) -> None:
    model = tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = set(vars(model))
    with pytest.raises(RuntimeError, match="stop"), adapted(model, TunerSettings(tuner=tuner, rank=2), ()):
        raise RuntimeError("stop")
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert set(vars(model)) == attributes


def test_a_layer_is_not_taken_for_another_that_ends_alike(tiny_model: Models) -> None:
    model = tiny_model("llama", layers=12)
    layout = find_layout(model)
    frozen = frozen_parameters("layers:0,2-11+embeddings", model, layout, [])
    with adapted(model, TunerSettings(tuner="lora"), frozen) as tuned:
        assert tuned.adapted_modules and all(".layers.1." in path for path in tuned.adapted_modules)
        holding = {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
        assert holding == set(tuned.adapted_modules)


def test_targets_are_ends_of_names_or_patterns(tiny_model: Models) -> None:
    model = tiny_model("llama")
    with adapted(model, TunerSettings(tuner="lora", target_modules=("q_proj", "*.0.mlp.*")), ()) as tuned:
        assert {path.rpartition(".")[2] for path in tuned.adapted_modules if ".0.mlp." not in path} == {"q_proj"}
        assert sum(".0.mlp." in path for path in tuned.adapted_modules) == 3
    with (
        pytest.raises(ConfigError, match=r"q_porj.*q_proj"),
        adapted(model, TunerSettings(tuner="lora", target_modules=("q_porj",)), ()),
    ):
        pass


def test_the_head_and_the_embeddings_are_no_targets(tiny_model: Models) -> None:
    for family in FAMILIES:
        model = tiny_model(family)
        layout = find_layout(model)
        with adapted(model, TunerSettings(tuner="lora"), ()) as tuned:
            assert layout.head not in tuned.adapted_modules
            assert not set(tuned.adapted_modules) & set(layout.embeddings)


def test_options_pass_through_to_peft_and_wrong_ones_are_named(tiny_model: Models) -> None:
    model = tiny_model("llama")
    with adapted(model, TunerSettings(tuner="lora", rank=4, tuner_options={"use_rslora": True}), ()):
        layer = model.model.layers[0].self_attn.q_proj
        assert layer.scaling["default"] == 32 / 4**0.5 and layer.lora_A["default"].weight.shape[0] == 4
    with pytest.raises(ConfigError, match=r"use_rslra.*use_rslora"):
        check_tuner(TunerSettings(tuner="lora", tuner_options={"use_rslra": True}))
    check_tuner(TunerSettings(tuner="ia3", rank=4))  # it has no rank; a study may set one for its other arms


@pytest.mark.parametrize("tuner", ["prefix_tuning", "p_tuning", "adalora", "xlora"])
def test_what_cannot_be_merged_says_why(tuner: str) -> None:
    with pytest.raises(ConfigError, match=f"{tuner}.*cannot be used here: "):
        check_tuner(TunerSettings(tuner=tuner))


def test_an_unknown_tuner_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="lora"):
        TuningSettings(tuner="lroa")
