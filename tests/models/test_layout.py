"""What is found in a model's module tree, against what is written down by hand for thirteen families."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel

import indelible
from indelible.errors import LayoutError
from indelible.models.layout import find_layout
from tiny_families import LAYERS, ODD, TABLE, WIDTH, build_family, build_odd, enliven
from tiny_models import FAMILIES, Make
from untouched import untouched

VOCABULARY = 300


@pytest.mark.parametrize("lively", [False, True])
@pytest.mark.parametrize("name", TABLE)
def test_layouts_are_as_written_down(name: str, lively: bool) -> None:
    family = TABLE[name]
    model = build_family(name, VOCABULARY)
    if lively:
        enliven(model)
    layout = find_layout(model)
    numbers = range(LAYERS)
    assert layout.blocks == tuple(f"{family.blocks}.{layer}" for layer in numbers)
    assert layout.attention == tuple(f"{family.blocks}.{layer}.{family.attention}" for layer in numbers)
    assert layout.mlp_out == tuple(f"{family.blocks}.{layer}.{family.mlp_out}" for layer in numbers)
    assert layout.mlp_out_weight == tuple(f"{path}.weight" for path in layout.mlp_out)
    assert layout.embeddings == family.embeddings
    assert layout.after_blocks == family.after_blocks
    assert layout.head in family.head
    assert layout.tied is family.tied
    assert layout.memory(0).in_out is family.in_out
    assert layout.adds_to_residual is family.adds
    assert (layout.hidden_size, layout.key_width) == (WIDTH, family.key_width)
    assert layout.n_layers == LAYERS
    weight = model.get_parameter(layout.mlp_out_weight[0])
    assert tuple(weight.shape) == ((family.key_width, WIDTH) if family.in_out else (WIDTH, family.key_width))


@pytest.mark.parametrize("name", TABLE)
def test_every_parameter_has_its_place(name: str) -> None:
    model = build_family(name, VOCABULARY)
    layout = find_layout(model)
    before = tuple(f"{path}." for path in layout.embeddings)
    after = tuple(f"{path}." for path in (*layout.after_blocks, layout.head))
    for parameter, _ in model.named_parameters():
        layer = layout.layer_of(parameter)
        expected = next((i for i in range(LAYERS) if f"{TABLE[name].blocks}.{i}." in parameter), None)
        assert layer == expected
        assert [layer is not None, parameter.startswith(before), parameter.startswith(after)].count(True) == 1, (
            parameter
        )
    assert layout.layer_of(f"{TABLE[name].blocks}.1") is None


def test_layers_beyond_nine_are_told_from_the_first(tiny_model: Make) -> None:
    layout = find_layout(tiny_model("llama", layers=12, width=16))
    assert layout.layer_of("model.layers.1.mlp.down_proj.weight") == 1
    assert layout.layer_of("model.layers.11.mlp.down_proj.weight") == 11


def test_a_head_may_be_untied_where_a_family_usually_ties(tiny_model: Make) -> None:
    config = tiny_model("gpt2").config
    config.tie_word_embeddings = False
    assert not find_layout(AutoModelForCausalLM.from_config(config)).tied


@pytest.mark.parametrize("family", FAMILIES)
def test_looking_leaves_a_model_as_it_was(family: str, tiny_model: Make) -> None:
    model = tiny_model(family).train()
    model.get_submodule(find_layout(model).blocks[1]).eval()
    with untouched(model):
        find_layout(model)


@pytest.mark.parametrize("name", ODD)
def test_the_memory_is_found_by_what_it_does_or_the_layer_has_none(name: str) -> None:
    """The last linear map of a block is not it in these: a shared expert, a gate, a per-layer input's projection."""
    layout = find_layout(build_odd(name, VOCABULARY))
    assert layout.n_layers == LAYERS
    for layer, expected in enumerate(ODD[name].memories):
        if isinstance(expected, tuple):
            memory = layout.memory(layer)
            assert (memory.path.removeprefix(f"{layout.blocks[layer]}."), memory.key_width) == expected
        else:
            with pytest.raises(LayoutError, match=rf"Layer {layer} has no one linear map to edit: .*{expected}"):
                layout.memory(layer)
    assert layout.resumes is ODD[name].resumes


def test_a_map_can_be_named_where_a_layer_has_no_memory_of_its_own() -> None:
    layout = find_layout(build_odd("deepseek_v3", VOCABULARY), mlp_out="mlp.shared_experts.down_proj")
    paths = [memory.path for memory in layout.known_memories.values()]
    assert paths == ["model.layers.0.mlp.down_proj"] + [
        f"model.layers.{layer}.mlp.shared_experts.down_proj" for layer in range(1, LAYERS)
    ]


def test_streams_side_by_side_are_refused() -> None:
    with pytest.raises(LayoutError, match=r"no one residual stream: .*model.layers.0.*\(2, 1, 8, 32\)"):
        find_layout(build_odd("gemma3n_text", VOCABULARY))


def test_a_model_that_looks_ahead_is_refused() -> None:
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    both_ways = BertLMHeadModel(BertConfig(vocab_size=VOCABULARY, is_decoder=False, **shape))
    with pytest.raises(LayoutError, match=r"BertLMHeadModel is not causal: .*bert.encoder.layer.0"):
        find_layout(both_ways)
    assert all(not module._forward_hooks for module in both_ways.modules())
    decoder = BertLMHeadModel(BertConfig(vocab_size=VOCABULARY, is_decoder=True, **shape))
    assert find_layout(decoder).blocks == ("bert.encoder.layer.0", "bert.encoder.layer.1")


def test_a_model_without_blocks_is_refused(tiny_model: Make) -> None:
    model = tiny_model("llama")
    model.model.layers = nn.Sequential(*model.model.layers)
    with pytest.raises(LayoutError, match=r"No list of residual blocks.*LlamaFor.*find_layout\(model, blocks="):
        find_layout(model)


def test_paths_can_be_given_and_are_checked(tiny_model: Make) -> None:
    model = tiny_model("llama")
    assert find_layout(model, blocks="model.layers", mlp_out="mlp.down_proj") == find_layout(model)
    with pytest.raises(LayoutError, match=r"no list of blocks at 'model.layer'. Lists: model.layers"):
        find_layout(model, blocks="model.layer")
    with pytest.raises(LayoutError, match=r"no module 'model.layers.0.mlp.out'"):
        find_layout(model, mlp_out="mlp.out")
    with pytest.raises(LayoutError, match=r"weight of .* is not a matrix"):
        find_layout(model, mlp_out="input_layernorm")
    with pytest.raises(LayoutError, match=r"'model.layers.0.mlp.up_proj' does not return to the hidden width 32"):
        find_layout(model, mlp_out="mlp.up_proj")
    with pytest.raises(LayoutError, match=r"took no part|has no weight"):
        find_layout(model, mlp_out="mlp.act_fn")


def test_a_wrapped_projection_is_refused(tiny_model: Make) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = tiny_model("llama")
    for block in model.model.layers:
        block.mlp.down_proj.__class__ = Doubled
    with pytest.raises(LayoutError, match="is not a plain linear map"):
        find_layout(model)


def test_no_family_is_named_where_models_are_taken_apart() -> None:
    source = Path(indelible.__file__).parent
    names = "|".join(sorted({*TABLE, "neox", "gemma", "qwen", "mistral", "mixtral", "pythia"}, key=len, reverse=True))
    compared = re.compile(rf"model_type|isinstance\(model, (?!PreTrainedModel)|[\"'](?:{names})[\"']", re.IGNORECASE)
    found = {
        f"{path.name}: {line.strip()}"
        for room in ("models", "edits")
        for path in sorted((source / room).rglob("*.py"))
        for line in path.read_text().splitlines()
        if compared.search(line)
    }
    assert found == set()
