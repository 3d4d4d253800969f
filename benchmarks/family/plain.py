"""What a model says when it is read in the plainest way: one row, one whole pass, no cache, no padding, no batch.

And all that can be seen of a model from outside, to tell whether something has changed it. Nothing of indelible is used
here, so that it can be the judge.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EXACT = 1e-3
"""Nats, as the exam promises."""

NEAR = 2e-3
"""Two logits closer than this may change places by rounding."""


class Off(Exception):  # noqa: N818
    """A value of indelible that is not what the plain reading says."""


def near(found: float, expected: float, what: str, within: float = EXACT) -> None:
    """Two numbers are equal, or ``Off`` says which are not."""
    if not abs(found - expected) <= within:
        raise Off(f"{what}: {found:.4f}, plainly {expected:.4f}")


def logits_tv(model: Any, tokens: Sequence[int]) -> Tensor:
    """Next-token logits after each token, (t, v), float64."""
    logits: Tensor = model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits
    return logits[0].double()


def log_probs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Log-probability of each of the answer's tokens after the prompt."""
    found_tv = logits_tv(model, [*prompt, *answer])[len(prompt) - 1 : -1].log_softmax(-1)
    return found_tv.gather(1, torch.tensor(list(answer))[:, None])[:, 0]


def greedy(model: Any, prompt: Sequence[int], count: int) -> tuple[list[int], int]:
    """The most probable next tokens, and how many of them rounding could not have changed."""
    tokens, sure = list(prompt), count
    for place in range(count):
        best = logits_tv(model, tokens)[-1].topk(2)
        if float(best.values[0] - best.values[1]) < NEAR:
            sure = min(sure, place)
        tokens.append(int(best.indices[0]))
    return tokens[len(prompt) :], sure


def mean_loss(model: Any, rows: Sequence[Sequence[int]]) -> float:
    """Mean cross entropy of all tokens but each row's first."""
    total, count = 0.0, 0
    for row in rows:
        total += float(functional.cross_entropy(logits_tv(model, row)[:-1], torch.tensor(row[1:]), reduction="sum"))
        count += len(row) - 1
    return total / count


@contextmanager
def seen_at(model: nn.Module, path: str) -> Iterator[dict[str, Tensor]]:
    """What goes into a module and comes out of it in the passes inside the block, the last one's."""
    found: dict[str, Tensor] = {}

    def hook(_module: nn.Module, args: Any, options: Mapping[str, Any], output: Any) -> None:
        for value in (*args, *options.values()):
            if isinstance(value, Tensor) and value.is_floating_point():
                found["in"] = value.detach().clone()
                break
        found["out"] = (output if isinstance(output, Tensor) else output[0]).detach().clone()

    handle = model.get_submodule(path).register_forward_hook(hook, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def changed_at(model: nn.Module, path: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A module's output passes through ``change`` inside the block."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    handle = model.get_submodule(path).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def as_it_stands(model: Any) -> dict[str, Any]:
    """All that can be seen of a model: bits, flags, modes, modules, hooks, settings, attributes."""
    configs = {"config": model.config, "generation config": getattr(model, "generation_config", None)}
    return {
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "buffers": {name: value.detach().clone() for name, value in model.named_buffers()},
        "requires_grad": {name: value.requires_grad for name, value in model.named_parameters()},
        "gradients": {name: value.grad is None for name, value in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "forwards": {name: "forward" in vars(module) for name, module in model.named_modules()},
        "hooks": {name: _hooks(module) for name, module in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        **{name: None if one is None else copy.deepcopy(one.to_dict()) for name, one in configs.items()},
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What has changed, in words; weights and buffers bit by bit."""
    found = []
    for kind, was in before.items():
        now = after[kind]
        if not isinstance(was, dict) or not isinstance(now, dict):
            found += [kind] if was != now else []
            continue
        for name in sorted({*was, *now}, key=str):
            if name not in was or name not in now:
                found.append(f"{kind}: {name} {'came' if name in now else 'went'}")
            elif isinstance(was[name], Tensor):
                one, other = was[name], now[name]
                if one.shape != other.shape or not torch.equal(_bytes(one), _bytes(other)):
                    found.append(f"{kind}: {name}")
            elif was[name] != now[name]:
                found.append(f"{kind}: {name}")
    return found


def _hooks(module: nn.Module) -> list[tuple[str, int]]:
    """How many hooks a module has, but for those that transformers leaves behind itself when it is asked for states."""
    found = []
    for name, hooks in vars(module).items():
        if name.endswith("_hooks") and isinstance(hooks, dict):
            own = [hook for hook in hooks.values() if "output_capturing" not in getattr(hook, "__module__", "")]
            found.append((name, len(own)))
    return found


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
