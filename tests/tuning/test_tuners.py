"""Tuners: what is frozen keeps its bits, what is merged says what the adapters said, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from transformers import PreTrainedModel

from indelible.errors import ConfigError, TrainingDivergedError
from indelible.models.layout import find_layout
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.tuners.adapting import adapted
from indelible.tuning.tuners.tuner import TUNERS, TunerSettings, check_tuner, tuner_names
from tiny_families import build_family, enliven
from tiny_models import FAMILIES, Make
from untouched import assert_same, bits, changed

TUNED_BY = ["full", "lora", "dora", "loha", "ia3", "ln_tuning"]
MASKS = [
    "none",
    "edited-weights",
    "edited-layers",
    "edited-layers:1+embeddings+head",
    "up-to-edited",
    "from-edited",
    "only-edited",
    "only-edited-weights",
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
@pytest.mark.parametrize("tuner", TUNED_BY)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_frozen_keeps_every_bit_and_the_rest_learns(
    family: str, tuner: str, mask: str, tiny_model: Make
) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    edited = [layout.mlp_out_weight[1]]
    frozen = frozen_parameters(mask, model, layout, edited)
    before = bits(model)
    modules = dict(model.named_modules())
    nothing_left = tuner == "ln_tuning" and mask in ("norms", "only-edited-weights")
    if nothing_left:
        with pytest.raises(ConfigError, match="frozen"):
            trained(model, tuner, frozen)
        return
    if tuner == "loha" and family == "gpt2":
        with pytest.raises(ConfigError, match="Conv1D"):
            trained(model, tuner, frozen)
        return
    said, losses = trained(model, tuner, frozen)
    assert dict(model.named_modules()) == modules  # the very same ones
    moved = set(changed(before, model))
    assert moved and not moved & frozen
    assert losses[-1] < losses[0]
    if edited[0] not in frozen and tuner != "ln_tuning":
        assert edited[0] in moved
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, said, rtol=1e-4, atol=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_layer_is_not_taken_for_another_that_ends_alike(tiny_model: Make) -> None:
    model = tiny_model("llama", layers=12)
    layout = find_layout(model)
    frozen = frozen_parameters("layers:0,2-11+embeddings", model, layout, [])
    with adapted(model, TunerSettings(tuner="lora"), frozen) as tuned:
        assert tuned.adapted_modules and all(".layers.1." in path for path in tuned.adapted_modules)
        holding = {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
        assert holding == set(tuned.adapted_modules)


def test_targets_are_ends_of_names_or_patterns(tiny_model: Make) -> None:
    model = tiny_model("llama")
    with adapted(model, TunerSettings(tuner="lora", target_modules=("q_proj", "*.0.mlp.*")), ()) as tuned:
        assert {path.rpartition(".")[2] for path in tuned.adapted_modules if ".0.mlp." not in path} == {"q_proj"}
        assert sum(".0.mlp." in path for path in tuned.adapted_modules) == 3
    with (
        pytest.raises(ConfigError, match=r"q_porj.*q_proj"),
        adapted(model, TunerSettings(tuner="lora", target_modules=("q_porj",)), ()),
    ):
        pass


def test_the_head_and_the_embeddings_are_no_targets(tiny_model: Make) -> None:
    for family in FAMILIES:
        model = tiny_model(family)
        layout = find_layout(model)
        with adapted(model, TunerSettings(tuner="lora"), ()) as tuned:
            assert layout.head not in tuned.adapted_modules
            assert not set(tuned.adapted_modules) & set(layout.embeddings)


def test_options_pass_through_to_peft_and_wrong_ones_are_named(tiny_model: Make) -> None:
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


@contextmanager
def biases(model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]) -> Iterator[Sequence[str]]:
    """BitFit: trains biases alone."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(".bias") and name not in frozen)
    yield ()


def test_a_tuner_of_another_distribution_is_one_function(tiny_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TUNERS, "_entries", {"bitfit": biases})
    check_tuner(TunerSettings(tuner="BitFit"))
    assert "bitfit" in tuner_names()
    model = tiny_model("gpt2")
    frozen = frozen_parameters("layers:0", model, find_layout(model), [])
    before = bits(model)
    trained(model, "bitfit", frozen)
    moved = set(changed(before, model))
    assert moved and all(name.endswith(".bias") for name in moved) and not moved & frozen
    assert all(parameter.requires_grad for parameter in model.parameters())


TINY_OPTIONS = {
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 50},
    "road": {"group_size": 8},
    "unilora": {"theta_d_length": 64},
    "vblora": {"vector_length": 16, "num_vectors": 8},
    "waveft": {"n_frequency": 50},
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tuner", [name for name in tuner_names() if name != "full"])
def test_every_type_of_peft_is_merged_exactly_or_refused_before_training(
    tuner: str, family: str, fails: bool, tiny_model: Make
) -> None:
    model = enliven(tiny_model(family))
    layout = find_layout(model)
    frozen = frozen_parameters("edited-weights+layers:0", model, layout, [layout.mlp_out_weight[1]])
    before = bits(model)
    modules, entered, ended, said = dict(model.named_modules()), False, False, None
    with torch.no_grad():
        at_first = model(TOKENS).logits
    settings = TunerSettings(tuner=tuner, rank=4, tuner_options=TINY_OPTIONS.get(tuner, {}))
    try:
        check_tuner(settings)
        with adapted(model, settings, frozen):
            entered = True
            with torch.no_grad():
                torch.testing.assert_close(model(TOKENS).logits, at_first, rtol=1e-3, atol=1e-3)
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimiser = torch.optim.SGD(parameters, lr=1e-2)
            for _ in range(2):
                model(TOKENS, labels=TOKENS).loss.backward()
                optimiser.step()
                optimiser.zero_grad()
            if fails:
                raise KeyboardInterrupt
            with torch.no_grad():
                said = model(TOKENS).logits
        ended = True
    except KeyboardInterrupt:
        assert fails
    except ConfigError as error:
        assert not entered and error.fix
    moved = set(changed(before, model))
    assert dict(model.named_modules()) == modules
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not moved & frozen and bool(moved) == ended
    if said is not None:
        with torch.no_grad():
            torch.testing.assert_close(model(TOKENS).logits, said, rtol=1e-3, atol=1e-3)


def test_adapters_that_begin_as_something_are_refused_with_what_to_do(tiny_model: Make) -> None:
    model = enliven(tiny_model("llama"))
    before = bits(model)
    options = {"n_frequency": 50}
    with (
        pytest.raises(ConfigError, match=r"says something else before any step.*init_weights"),
        adapted(model, TunerSettings(tuner="fourierft", tuner_options=options), ()),
    ):
        pass
    assert_same(before, model)
    with adapted(model, TunerSettings(tuner="fourierft", tuner_options={**options, "init_weights": True}), ()):
        pass


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_beginning_that_rewrites_weights_is_undone_by_a_failure(start: str, tiny_model: Make) -> None:
    model = tiny_model("llama")
    before = bits(model)
    settings = TunerSettings(tuner="lora", rank=2, tuner_options={"init_lora_weights": start})
    with pytest.raises(RuntimeError, match="stop"), adapted(model, settings, ()):
        assert not torch.equal(model.model.layers[0].mlp.up_proj.weight, before["model.layers.0.mlp.up_proj.weight"])
        raise RuntimeError("stop")
    assert_same(before, model)


@pytest.mark.parametrize(
    "option",
    [
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [5, 6]},
        {"target_parameters": ["layers.1.mlp.down_proj.weight"]},
        {"layers_to_transform": [0]},
    ],
)
def test_no_option_reaches_past_the_mask(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        check_tuner(TunerSettings(tuner="lora", tuner_options=option))


@pytest.mark.parametrize("settings", [{"tuner": "ia3"}, {"tuner": "lora", "tuner_options": {"lora_bias": True}}])
def test_an_adapter_that_would_change_a_frozen_bias_is_refused(settings: dict[str, object], tiny_model: Make) -> None:
    model = enliven(tiny_model("gpt2"))
    frozen = frozen_parameters("like:*.bias", model, find_layout(model), [])
    with (
        pytest.raises(ConfigError, match=r"c_attn\.bias.*frozen"),
        adapted(model, TunerSettings.model_validate(settings), frozen),
    ):
        pass


def test_biases_that_an_option_trains_obey_the_mask(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    frozen = frozen_parameters("layers:0", model, find_layout(model), [])
    before = bits(model)
    with adapted(model, TunerSettings(tuner="lora", tuner_options={"bias": "all"}), frozen):
        optimiser = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
        model(TOKENS, labels=TOKENS).loss.backward()
        optimiser.step()
    moved = set(changed(before, model))
    assert "transformer.h.1.mlp.c_fc.bias" in moved and not moved & frozen


@pytest.mark.parametrize("tuner", ["lora", "dora", "hira", "ln_tuning"])
def test_what_is_not_finite_is_not_merged(tuner: str, tiny_model: Make) -> None:
    model = tiny_model("llama")
    before = bits(model)
    with pytest.raises(TrainingDivergedError), adapted(model, TunerSettings(tuner=tuner, rank=2), ()), torch.no_grad():
        last = [parameter for parameter in model.parameters() if parameter.requires_grad][-1]
        last.fill_(float("nan"))
    assert_same(before, model)


@pytest.mark.parametrize("tuner", ["lora", "dora", "ia3"])
def test_what_acts_beside_a_module_acts_beside_its_adapter(tuner: str, tiny_model: Make) -> None:
    """As a codebook edit does: in training it is silent, in evaluation it replaces what the memory returns."""
    model = tiny_model("llama")
    path = find_layout(model).mlp_out[1]
    memory = model.get_submodule(path)

    def replaced(module: torch.nn.Module, given: object, returned: torch.Tensor) -> torch.Tensor | None:
        return None if module.training else torch.zeros_like(returned)

    handle = memory.register_forward_hook(replaced)
    model.train()
    with adapted(model, TunerSettings(tuner=tuner, rank=2), ()):
        optimiser = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0)
        for _ in range(2):
            model(TOKENS, labels=TOKENS).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            said = model.eval()(TOKENS).logits
    assert model.training, "as before"
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, said, rtol=1e-4, atol=1e-5)
        assert model.get_submodule(path) is memory and len(memory._forward_hooks) == 1
        handle.remove()
        assert not torch.allclose(model(TOKENS).logits, said)


def test_configuration_and_modes_are_left_alone(tiny_model: Make) -> None:
    model = tiny_model("llama").eval()
    model.config.pretraining_tp = 2  # peft's own wrapper sets it to 1
    settings = model.config.to_dict()
    with adapted(model, TunerSettings(tuner="lora", dropout=0.5), ()):
        assert not any(module.training for module in model.modules())
    assert model.config.to_dict() == settings


def test_a_family_that_peft_does_not_know_is_scaled_where_others_are(tiny_model: Make) -> None:
    model = build_family("olmo2", 400)
    with adapted(model, TunerSettings(tuner="ia3"), ()):
        inward = {path for path, module in model.named_modules() if getattr(module, "is_feedforward", False)}
    assert inward == set(find_layout(model).mlp_out)


def test_oft_takes_the_number_of_its_blocks_or_their_size(tiny_model: Make) -> None:
    for options in ({}, {"oft_block_size": 8}):
        model = tiny_model("llama")
        with adapted(model, TunerSettings(tuner="oft", rank=4, tuner_options=options), ()):
            rotation = model.model.layers[0].mlp.up_proj.oft_R["default"]
            assert (rotation.r, rotation.block_size) == (4, 8)
