"""Looking into forward passes: what is seen is right, and nothing is left behind, whatever happens inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from indelible.models.layout import find_layout
from indelible.models.trace import capture, evaluating, product_precision, replace, resume_from, select_before_head
from tiny_families import LAYERS, TABLE, build_family, enliven
from tiny_models import Make
from untouched import untouched

TOKENS = torch.tensor([[5, 9, 40, 7, 3, 3, 100], [8, 2, 2, 61, 17, 30, 11]])


@contextmanager
def nothing_left(model: nn.Module) -> Iterator[None]:
    yield
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert "forward" not in module.__dict__


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(TOKENS, use_cache=False).logits


@pytest.mark.parametrize("name", TABLE)
def test_a_pass_can_begin_at_any_block(name: str) -> None:
    model = enliven(build_family(name, 300))
    layout = find_layout(model)
    whole = logits(model)
    for layer in range(LAYERS):
        below = torch.empty(0)
        if layer:
            with torch.no_grad(), capture(model, outputs_of=[layout.blocks[layer - 1]]) as seen:
                model(TOKENS, use_cache=False)
            below = seen.outputs[layout.blocks[layer - 1]]
        ran: list[int] = []
        handles = [
            model.get_submodule(path)
            .get_submodule(TABLE[name].mlp_out)
            .register_forward_hook(lambda *_seen, number=number, ran=ran: ran.append(number))
            for number, path in enumerate(layout.blocks)
        ]
        with resume_from(model, layout.blocks, layer, below, as_tuple=layout.blocks_return_tuple):
            resumed = logits(model)
        for handle in handles:
            handle.remove()
        assert ran == list(range(layer, LAYERS))
        torch.testing.assert_close(resumed, whole, atol=1e-5, rtol=1e-5)
    with nothing_left(model):
        assert torch.equal(logits(model), whole)


def test_an_outer_resume_survives_an_inner_one() -> None:
    model = enliven(build_family("llama", 300))
    blocks = find_layout(model).blocks
    first, second = torch.randn(2, 2, 7, 32).unbind()
    with resume_from(model, blocks, 1, first, as_tuple=False):
        outer = logits(model)
        with resume_from(model, blocks, 2, second, as_tuple=False):
            assert not torch.equal(logits(model), outer)
        assert torch.equal(logits(model), outer)
    with nothing_left(model):
        pass


def test_capture_records_and_stops() -> None:
    model = enliven(build_family("gptj", 300))
    layout = find_layout(model)
    later: list[int] = []
    handle = model.get_submodule(layout.blocks[2]).register_forward_hook(lambda *_seen: later.append(1))
    with torch.no_grad():
        with capture(model, inputs_of=layout.mlp_out[:2], outputs_of=layout.mlp_out[:2]) as seen:
            model(TOKENS)
        assert later == [1]
        reached = False
        with capture(model, outputs_of=[layout.blocks[1]], stop_after=layout.blocks[1]) as stopped:
            model(TOKENS)
            reached = True
    assert not reached and later == [1]
    handle.remove()
    for path in layout.mlp_out[:2]:
        torch.testing.assert_close(model.get_submodule(path)(seen.inputs[path]), seen.outputs[path])
    assert stopped.outputs[layout.blocks[1]].shape == (2, 7, 32)
    with nothing_left(model):
        pass


def test_replace_changes_one_output_and_keeps_tuples() -> None:
    model = enliven(build_family("gptj", 300))
    layout = find_layout(model)
    whole = logits(model)
    for path in (layout.blocks[1], layout.mlp_out[1]):
        with replace(model, path, lambda output: output):
            assert torch.equal(logits(model), whole)
        with replace(model, path, lambda output: output + 1.0):
            assert not torch.equal(logits(model), whole)
    with nothing_left(model):
        assert torch.equal(logits(model), whole)


@pytest.mark.parametrize("name", TABLE)
def test_logits_are_computed_only_where_asked(name: str) -> None:
    model = enliven(build_family(name, 300))
    head = model.get_submodule(find_layout(model).head)
    whole = logits(model)
    rows, places = torch.tensor([1, 0, 1]), torch.tensor([6, 2, 0])
    with select_before_head(head, rows, places):
        few = logits(model)
    assert few.shape == (1, 3, 300)
    torch.testing.assert_close(few[0], whole[rows, places], atol=1e-5, rtol=1e-5)
    with nothing_left(model):
        assert torch.equal(logits(model), whole)


@pytest.mark.parametrize("kind", ["capture", "stopping", "replace", "resume", "select", "evaluating"])
def test_nothing_is_left_when_the_body_raises(kind: str) -> None:
    model = build_family("gpt2", 300).train()
    layout = find_layout(model)
    model.get_submodule(layout.attention[1]).eval()
    model.get_parameter(layout.mlp_out_weight[1]).requires_grad_(False)
    block = layout.blocks[1]
    contexts = {
        "capture": lambda: capture(model, inputs_of=[block], outputs_of=[block]),
        "stopping": lambda: capture(model, stop_after=block),
        "replace": lambda: replace(model, block, lambda output: output),
        "resume": lambda: resume_from(model, layout.blocks, 2, torch.zeros(2, 7, 32), as_tuple=False),
        "select": lambda: select_before_head(model.lm_head, torch.tensor([0]), torch.tensor([0])),
        "evaluating": lambda: evaluating(model),
    }
    with untouched(model), pytest.raises(ZeroDivisionError), contexts[kind]():
        if kind == "evaluating":
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
            torch.rand(3)
        raise ZeroDivisionError


def allow_older() -> None:
    torch.set_float32_matmul_precision("medium")


def allow_oldest() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def allow_newer() -> None:
    torch.backends.fp32_precision = "tf32"


@pytest.mark.parametrize("allow", [lambda: None, allow_older, allow_oldest, allow_newer])
def test_products_of_float32_are_computed_in_it_in_evaluation_mode(allow: Callable[[], None], tiny_model: Make) -> None:
    def precisions() -> list[str]:
        return [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]

    first = precisions()
    with product_precision():
        allow()
        allowed = precisions()
        with evaluating(tiny_model("llama")):
            assert precisions() == ["ieee", "ieee"]
        assert precisions() == allowed
    assert precisions() == first
    torch.get_float32_matmul_precision()  # which refuses where torch's two ways to say it are at odds


def test_an_unknown_path_leaves_no_hook_behind(tiny_model: Make) -> None:
    model = tiny_model("llama")
    with nothing_left(model), pytest.raises(AttributeError), capture(model, inputs_of=["model.norm", "model.nothing"]):
        pass
    with nothing_left(model), pytest.raises(AttributeError), replace(model, "nothing", lambda output: output):
        pass
