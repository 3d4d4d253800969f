"""What can be seen of a model from outside, and that nothing of it has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel


def bits(model: PreTrainedModel) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def raw(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def changed(before: dict[str, Tensor], model: PreTrainedModel) -> list[str]:
    """Names of what has other bits than before."""
    after = bits(model)
    assert before.keys() == after.keys()
    return [name for name in before if not torch.equal(raw(before[name]), raw(after[name]))]


def assert_same(before: dict[str, Tensor], model: PreTrainedModel) -> None:
    assert changed(before, model) == []


@contextmanager
def untouched(model: PreTrainedModel) -> Iterator[None]:
    """Assert that the block leaves a model as it was, with all that can be seen of it from outside."""
    before, random = bits(model), torch.random.get_rng_state()
    modes = {name: module.training for name, module in model.named_modules()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    hooks = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    yield
    assert_same(before, model)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert {name: parameter.grad for name, parameter in model.named_parameters()} == grads
    assert {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()} == hooks
    assert all("forward" not in module.__dict__ for module in model.modules())
