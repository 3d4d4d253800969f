"""Freeze masks: the right parameters on every family, and bit-identical after training with weight decay."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from indelible.errors import ConfigError, UnknownNameError
from indelible.models.layout import find_layout
from indelible.tuning.freezing.mask import (
    MASKS,
    about_edit,
    check_mask,
    describe_frozen,
    frozen_parameters,
    norm_parameters,
)
from indelible.tuning.settings import TuningSettings
from indelible.tuning.train import fine_tune
from tiny_families import SHAPE, TABLE, build_family
from tiny_models import FAMILIES, Make, Tokenizer

EMBEDDINGS = {family: {f"{path}.weight" for path in TABLE[family].embeddings} for family in FAMILIES}


def in_blocks(family: str, model: PreTrainedModel, layers: set[int]) -> set[str]:
    """Parameters of the blocks, written down by name here so that the layout is not its own judge."""
    prefixes = tuple(f"{TABLE[family].blocks}.{layer}." for layer in layers)
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_freeze_exactly_what_they_say(family: str, tiny_model: Make) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    edited = [layout.mlp_out_weight[0], layout.mlp_out_weight[2]]
    assert frozen_parameters("none", model, layout, edited) == frozenset()
    assert frozen_parameters("edited-weights", model, layout, edited) == set(edited)
    assert frozen_parameters("edited-layers", model, layout, edited) == in_blocks(family, model, {0, 2})
    up_to = frozen_parameters("up-to-edited", model, layout, edited)
    assert up_to == in_blocks(family, model, {0, 1, 2}) | EMBEDDINGS[family]
    assert frozen_parameters("edited-layers:1", model, layout, edited) == in_blocks(family, model, {0, 1, 2, 3})
    assert frozen_parameters("edited-layers±1", model, layout, edited[:1]) == in_blocks(family, model, {0, 1})
    assert frozen_parameters("all-but-edited", model, layout, edited) == in_blocks(family, model, {0, 2})
    everything = {name for name, _ in model.named_parameters()}
    assert frozen_parameters("only-edited", model, layout, edited) == everything - in_blocks(family, model, {0, 2})
    assert frozen_parameters("only-edited-weights", model, layout, edited) == everything - set(edited)
    inside = in_blocks(family, model, {0, 1, 2, 3})
    head = {name for name in everything if name.startswith(("lm_head.", "embed_out."))} or {
        f"{TABLE[family].embeddings[0]}.weight"
    }
    assert frozen_parameters("head", model, layout, []) == head
    assert frozen_parameters("embeddings", model, layout, []) == EMBEDDINGS[family]
    from_two = in_blocks(family, model, {2, 3}) | head | (everything - inside - EMBEDDINGS[family])
    assert frozen_parameters("from-edited", model, layout, edited[1:]) == from_two
    both_ends = frozen_parameters("all-but-edited+embeddings+head", model, layout, edited)
    assert both_ends == in_blocks(family, model, {0, 2}) | EMBEDDINGS[family] | head
    assert frozen_parameters("layers:0-1, 3", model, layout, []) == in_blocks(family, model, {0, 1, 3})


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_found_by_what_they_hold(family: str, tiny_model: Make) -> None:
    model = tiny_model(family)
    norms = frozen_parameters("norms", model, find_layout(model), [])
    assert norms == {name for name, _ in model.named_parameters() if "norm" in name or ".ln_" in name}


def test_patterns_choose_by_name(tiny_model: Make) -> None:
    model = tiny_model("llama")
    layout = find_layout(model)
    down = frozen_parameters("like:*.down_proj.weight", model, layout, [])
    assert down == set(layout.mlp_out_weight)
    assert frozen_parameters("like:*.down_proj.weight,model.norm.*", model, layout, []) == down | {"model.norm.weight"}
    with pytest.raises(ConfigError, match=r"dwn_proj.*Near it: .*down_proj"):
        frozen_parameters("like:model.layers.0.mlp.dwn_proj.weight", model, layout, [])


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ("edited-layers:x", "edited-layers:K"),
        ("layers", "layers:0-5,8"),
        ("layers:5-2", "layers:0-5,8"),
        ("like:", "like:PATTERN"),
        ("none:3", "no argument"),
        ("edited-layers:", "colon"),
    ],
)
def test_masks_that_cannot_be_read_say_how_they_are_written(mask: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_mask(mask)


def test_masks_have_one_way_of_being_written() -> None:
    assert check_mask(" edited-layers±1 + head") == "edited-layers:1+head"
    assert check_mask("layers:0-1, 3+head+ head") == "layers:0-1,3+head"
    assert about_edit("head+edited-layers") and not about_edit("head+layers:3")
    with pytest.raises(UnknownNameError, match="edited-layers"):
        check_mask("none+edited-layer")


def test_what_is_frozen_is_described_in_ranges(tiny_model: Make) -> None:
    model = tiny_model("qwen2")
    layout = find_layout(model)
    frozen = frozen_parameters("layers:0-1,3+embeddings+like:*.2.mlp.down_proj.weight", model, layout, [])
    said = describe_frozen(model, layout, frozen)
    sizes = {name: tensor.numel() for name, tensor in model.named_parameters()}
    numbers = f"{sum(sizes[name] for name in frozen):,} of {sum(sizes.values()):,} numbers"
    assert said == (
        f"{len(frozen)} of {len(sizes)} tensors, {numbers}: layers 0-1, 3; mlp.down_proj.weight of layers 2; "
        "model.embed_tokens.weight (the head too: it is tied)"
    )
    with pytest.raises(ConfigError, match="names layer 4 of 4"):
        frozen_parameters("layers:4", model, layout, [])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_graph_is_built_below_the_last_edited_layer(
    family: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    seen: dict[int, set[bool]] = {}

    def watch(layer: int) -> None:
        def hook(module: torch.nn.Module, args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            if torch.is_grad_enabled():
                seen.setdefault(layer, set()).add(hidden.requires_grad)

        model.get_submodule(layout.blocks[layer]).register_forward_hook(hook)

    for layer in range(layout.n_layers):
        watch(layer)
    frozen = frozen_parameters("up-to-edited", model, layout, [layout.mlp_out_weight[1]])
    settings = TuningSettings(steps=1, max_tokens=128, batch_size=2, heldout_examples=2)
    fine_tune(model, tiny_tokenizer, settings, frozen=frozen)
    assert seen == {0: {False}, 1: {False}, 2: {True}, 3: {True}}


def test_a_tied_head_is_frozen_under_the_name_of_the_embeddings(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    layout = find_layout(model)
    assert frozen_parameters("edited-weights", model, layout, ["lm_head.weight"]) == {"transformer.wte.weight"}
    everything = {name for name, _ in model.named_parameters()}
    for name in ("lm_head.weight", "transformer.wte.weight"):
        rest = frozen_parameters("only-edited-weights", model, layout, [name])
        assert rest == everything - {"transformer.wte.weight"}
    assert frozen_parameters("head", model, layout, []) == frozen_parameters("like:lm_head.*", model, layout, [])
    assert "transformer.wte.weight" in frozen_parameters("from-edited", model, layout, [layout.mlp_out_weight[3]])


def test_masks_that_make_no_sense_are_refused(tiny_model: Make) -> None:
    model = tiny_model("llama")
    layout = find_layout(model)
    for mask in (name for name in MASKS.names() if MASKS.get(name).about_edit):
        with pytest.raises(ConfigError, match="none"):
            frozen_parameters(mask, model, layout, [])
    assert frozen_parameters("none", model, layout, []) == frozenset()
    with pytest.raises(ConfigError, match="not in this model"):
        frozen_parameters("edited-weights", model, layout, ["transformer.h.0.mlp.c_proj.weight"])
    with pytest.raises(ConfigError, match="edited-weights"):
        frozen_parameters("edited-layers", model, layout, ["model.norm.weight"])
    with pytest.raises(ConfigError, match="no parameter to train"):
        frozen_parameters("edited-weights", model, layout, [name for name, _ in model.named_parameters()])
    with pytest.raises(UnknownNameError, match="edited-layers"):
        frozen_parameters("edited-layer", model, layout, [])
    with pytest.raises(ConfigError, match=r"names layer 10{30} of 4"):  # however large a number, it is not counted to
        frozen_parameters(f"layers:0-{10**30}", model, layout, [])
    every_layer = frozen_parameters("layers:0-3", model, layout, [])
    assert frozen_parameters(f"edited-layers:{10**30}", model, layout, [layout.mlp_out_weight[1]]) == every_layer
    for path, module in list(model.named_modules()):
        if "norm" in path:
            del module.weight
    with pytest.raises(ConfigError, match="'norms' freezes nothing"):  # a part that does nothing is a mistake too
        frozen_parameters("norms+head", model, layout, [])


def test_the_parameters_of_an_activation_are_no_norms() -> None:
    small = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 1}
    model = build_family("apertus", 400, settings=small)
    assert {name for name, _ in model.named_parameters() if ".act_fn." in name}
    parts = ("attention_layernorm", "feedforward_layernorm", "self_attn.k_norm", "self_attn.q_norm")
    assert norm_parameters(model) == {"model.norm.weight", *(f"model.layers.0.{part}.weight" for part in parts)}
