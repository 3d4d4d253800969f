"""Passes through a model whose frozen leading layers are reused say what whole passes say, and what cannot be reused is
left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from frozen_models import made, passed, reusing, rows_through, up_to
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from indelible.tuning.frozen_prefix import frozen_prefix
from tiny_families import TABLE, enliven

BATCHES: list[tuple[list[list[int]], dict[str, Any], int]] = [
    ([[5, 6, 7, 8], [9, 10]], {}, 0),
    ([[9, 10], [5, 6, 7, 8]], {}, 2),
    ([[9, 10]], {"width": 9}, 1),
    ([[11, 12, 13, 14, 15, 16], [5, 6, 7, 8], [17]], {"width": 7}, 1),
    ([[9, 10], [5, 6, 7, 8]], {"left": True}, 0),  # some families do not hide padding from what follows it
    ([[9, 10], [5, 6, 7, 8]], {"left": True, "width": 9}, 0),
    ([[17], [17], [5, 6]], {}, 2),
]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bloom", "opt", "falcon", "qwen2", "gemma3_text", "phi"])
def test_batches_of_known_and_unknown_rows_say_the_same(family: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = made(family, tiny_tokenizer), made(family, tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        for rows, options, known in BATCHES:
            before = prefix.reused
            for found, expected in zip(passed(model, rows, **options), passed(other, rows, **options), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            assert prefix.reused - before == known
    assert all("forward" not in vars(module) for module in model.modules())
    assert prefix.kept_bytes == 0 and not model._forward_pre_hooks and not model._forward_hooks


def test_gradients_are_those_of_the_whole_pass(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = made("gpt2", tiny_tokenizer).train(), made("gpt2", tiny_tokenizer).train()
    with reusing(model) as (model, prefix):
        for _ in range(2):
            for one in (model, other):
                one.zero_grad()
                torch.cat(passed(one, [[5, 6, 7, 8], [9, 10]])).logsumexp(-1).sum().backward()
        assert prefix.reused == 2
        pairs = dict(other.named_parameters())
        trained = [(tensor, pairs[name]) for name, tensor in model.named_parameters() if tensor.requires_grad]
        for tensor, whole in trained:
            torch.testing.assert_close(tensor.grad, whole.grad, rtol=1e-4, atol=1e-4)


def test_what_was_computed_in_one_precision_is_not_used_in_another(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [[5, 6, 7, 8], [9, 10]]
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        passed(model, rows)
        for known in (0, 2):
            before = prefix.reused
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found, expected = passed(model, rows), passed(other, rows)
            assert prefix.reused - before == known
            torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=2e-2, atol=2e-1)
        torch.testing.assert_close(torch.cat(passed(model, rows)), torch.cat(passed(other, rows)))


def test_no_more_is_kept_than_the_budget_allows(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
    of_row = 4 * 32 * 4 + 4 * 8  # states in float32, token ids
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model, budget=2 * of_row + 1) as (model, prefix), torch.no_grad():
        for known in (0, 2, 2):
            before = prefix.reused
            torch.testing.assert_close(torch.cat(passed(model, rows)), torch.cat(passed(other, rows)))
            assert prefix.reused - before == known
            assert prefix.kept_bytes == 2 * of_row
        through = rows_through(model, 0)
        passed(model, rows)
        assert through == [1]
    model = made("llama", tiny_tokenizer)
    with frozen_prefix(model, up_to(model), 0) as prefix:
        prefix.begin(repeated=True)
        assert prefix.layers == 0


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
NOT_PLAIN: dict[str, dict[str, Any]] = {
    "cache": {"use_cache": True},
    "cache by default": {"use_cache": None},
    "positions": {"use_cache": False, "position_ids": torch.arange(4).expand(2, 4)},
    "hidden states": {"use_cache": False, "output_hidden_states": True},
    "holes": {"use_cache": False, "attention_mask": torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]])},
    "texts of a packed row": {"use_cache": False, "attention_mask": torch.tensor([[1, 1, 2, 2], [1, 1, 1, 1]])},
    "nothing real": {"use_cache": False, "attention_mask": torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])},
}


@pytest.mark.parametrize("options", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_passes_that_are_not_plain_are_left_alone(
    options: dict[str, Any], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        passed(model, IDS.tolist())
        kept, through = prefix.kept_bytes, rows_through(model, 0)
        found, expected = model(input_ids=IDS, **options), other(input_ids=IDS, **options)
        assert torch.equal(found.logits, expected.logits)
        model(IDS, use_cache=False)
        model(inputs_embeds=model.get_input_embeddings()(IDS), use_cache=False)
        assert through == [2, 2, 2]
        for use_cache in (True, False):
            asked = {"max_new_tokens": 3, "do_sample": False, "use_cache": use_cache, "pad_token_id": 0}
            assert torch.equal(model.generate(input_ids=IDS, **asked), other.generate(input_ids=IDS, **asked))
        assert (prefix.reused, prefix.kept_bytes) == (0, kept)


def _shifted(_module: nn.Module, _args: object, output: Any) -> Any:
    return output + 1 if isinstance(output, Tensor) else (output[0] + 1, *output[1:])


def _rolled(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return args, {**options, "input_ids": options["input_ids"].roll(1, 1)}


@pytest.mark.parametrize("path", ["model.layers.1", "model.layers.0.mlp", "model.rotary_emb", "model"])
def test_hooks_below_the_trained_layers_see_every_pass(path: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [[5, 6, 7, 8], [9, 10]]
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        usual = torch.cat(passed(model, rows))
        handles = [
            one.get_submodule(path).register_forward_pre_hook(_rolled, with_kwargs=True)
            if path == "model"
            else one.get_submodule(path).register_forward_hook(_shifted)
            for one in (model, other)
        ]
        found = torch.cat(passed(model, rows))
        assert torch.equal(found, torch.cat(passed(other, rows)))
        assert not torch.allclose(found, usual) and prefix.reused == 0
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(torch.cat(passed(model, rows)), usual)
        assert prefix.reused == 2


def _scaled(model: PreTrainedModel) -> None:
    model.get_submodule("model.layers.0.mlp.down_proj").weight.mul_(1.5)  # type: ignore[operator]


def _exchanged(model: PreTrainedModel) -> None:
    there = model.get_submodule("model.layers.0.mlp.down_proj")
    another = nn.Linear(*reversed(there.weight.shape), bias=False).requires_grad_(False)  # type: ignore[misc, arg-type]
    another.weight.copy_(there.weight.flip(0))  # type: ignore[operator]
    model.set_submodule("model.layers.0.mlp.down_proj", another)


def _wrapped(model: PreTrainedModel) -> None:
    block = model.get_submodule("model.layers.0")
    model.set_submodule("model.layers.0", copy.deepcopy(block))
    _scaled(model)


@pytest.mark.parametrize(("change", "known"), [(_scaled, 2), (_exchanged, 2), (_wrapped, 0)])
def test_what_was_computed_with_other_weights_is_dropped(
    change: Callable[[PreTrainedModel], None], known: int, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [[5, 6, 7, 8], [9, 10]]
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        usual = torch.cat(passed(model, rows))
        for one in (model, other):
            change(one)
        for reused in (0, known):
            found = torch.cat(passed(model, rows))
            torch.testing.assert_close(found, torch.cat(passed(other, rows)))
            assert prefix.reused == reused
        assert not torch.allclose(found, usual)


def _sharing(model: PreTrainedModel) -> PreTrainedModel:
    """The last layer reads what the first one has returned in the same pass, as families do that share keys."""
    shared: dict[str, Tensor] = {}
    embedding, first, last = map(model.get_submodule, ("model.embed_tokens", "model.layers.0", "model.layers.3"))
    embed, forward, forward_last = embedding.forward, first.forward, last.forward

    def embedded(ids: Tensor) -> Any:
        shared.clear()
        return embed(ids)

    def returned(*args: Any, **options: Any) -> Any:
        shared["states"] = forward(*args, **options)
        return shared["states"]

    embedding.forward, first.forward = embedded, returned
    last.forward = lambda states, *args, **options: forward_last(states + shared["states"], *args, **options)
    return model


def test_layers_that_upper_ones_read_are_not_reused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = _sharing(made("llama", tiny_tokenizer)), _sharing(made("llama", tiny_tokenizer))
    frozen = up_to(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    with frozen_prefix(model, frozen) as prefix, torch.no_grad():
        prefix.begin(repeated=True)
        for _ in range(2):
            rows = [[5, 6, 7, 8], [9, 10]]
            assert torch.equal(torch.cat(passed(model, rows)), torch.cat(passed(other, rows)))
        assert (prefix.layers, prefix.reused) == (0, 0)


LONG: dict[str, dict[str, Any]] = {
    "dynamic": {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}},
    "longrope": {
        "rope_parameters": {
            "rope_type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 8,
            "factor": 16.0,
        }
    },
}


@pytest.mark.parametrize("kind", LONG)
def test_rows_beside_one_that_turns_their_positions_are_run_again(
    kind: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    settings = {**TABLE["llama"].settings, **copy.deepcopy(LONG[kind])}
    settings["rope_parameters"]["rope_theta"] = 10_000.0
    config = CONFIG_MAPPING["llama"](vocab_size=64, **settings)
    with torch.random.fork_rng(devices=[]):
        model = enliven(AutoModelForCausalLM.from_config(config).eval())
    other, short, long = copy.deepcopy(model), [5, 6, 7], list(range(20, 34))
    with reusing(model) as (model, prefix), torch.no_grad():
        usual = passed(model, [short])[0]
        for _ in range(2):
            for found, expected in zip(passed(model, [short, long]), passed(other, [short, long]), strict=True):
                assert torch.equal(found, expected)
            assert not torch.allclose(found[:3], usual) and prefix.reused == 0
        torch.testing.assert_close(passed(model, [short])[0], usual)
        assert prefix.reused == 1


def test_layers_that_are_left_out_by_chance_are_run_each_time(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = (made("opt", tiny_tokenizer).train() for _ in range(2))
    for one in (model, other):
        one.get_submodule("model.decoder").layerdrop = 0.5  # type: ignore[assignment]
    with reusing(model) as (model, prefix), torch.random.fork_rng(devices=[]):
        for seed in range(6):
            found = []
            for one in (model, other):
                torch.manual_seed(seed)
                prefix._random = None  # tried anew: what is drawn then differs
                found.append(torch.cat(passed(one, [[5, 6, 7, 8], [9, 10]])))
            assert torch.equal(*found)
        assert prefix.reused == 0


def test_layers_that_are_trained_after_all_are_run_again(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = made("llama", tiny_tokenizer).train()
    with reusing(model) as (model, prefix):
        passed(model, [[5, 6, 7]])
        passed(model, [[5, 6, 7]])
        assert prefix.reused == 1
        model.get_input_embeddings().requires_grad_(True)
        torch.cat(passed(model, [[5, 6, 7]])).sum().backward()
        assert model.get_input_embeddings().weight.grad is not None
        assert prefix.kept_bytes == 0
        with torch.no_grad():
            passed(model, [[5, 6, 7]])
        assert prefix.reused == 1


def test_an_error_in_a_pass_leaves_the_layers_as_they_were(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = made("llama", tiny_tokenizer)
    with reusing(model) as (model, _), torch.no_grad():
        passed(model, [[5, 6, 7]])

        def broken(_module: nn.Module, _args: object) -> None:
            raise RuntimeError("broken")

        handle = model.lm_head.register_forward_pre_hook(broken)
        with pytest.raises(RuntimeError, match="broken"):
            passed(model, [[5, 6, 7]])
        handle.remove()
        assert all("forward" not in vars(module) for module in model.modules())
