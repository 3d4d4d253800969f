"""Looking into a forward pass and changing it: context managers that leave the model as they found it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_PRECISION = "fp32_precision"


class _StopForwardError(Exception):
    """Raised inside a forward pass to end it; never leaves ``capture``."""


@dataclass
class Capture:
    """What ``capture`` saw, by module path. Tensors are those of the pass itself, not copies."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


def first_tensor(value: Any) -> Tensor:
    """The tensor that a module returned: itself, or the first element of its tuple."""
    return value if isinstance(value, Tensor) else value[0]


def by_row(value: Tensor, rows: int) -> Tensor:
    """What a module saw or returned, as ``(rows, tokens, width)``: some families flatten the first two in a block."""
    return value.reshape(rows, -1, value.shape[-1])


@contextmanager
def capture(
    model: nn.Module,
    *,
    inputs_of: Sequence[str] = (),
    outputs_of: Sequence[str] = (),
    stop_before: str | None = None,
    stop_after: str | None = None,
    copies: bool = False,
) -> Iterator[Capture]:
    """Record inputs and outputs of modules during the forward passes inside the block.

    Args:
        inputs_of: paths of modules whose first positional input is recorded.
        outputs_of: paths of modules whose output (its first element, where it is a tuple) is recorded.
        stop_before: path of a module before which the pass ends, its input recorded; the block is then left without
            error.
        stop_after: likewise, after the module has run.
        copies: keep copies of outputs; some families add to theirs in place later on.
    """
    seen = Capture()

    def record_input(path: str, _module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.inputs[path] = args[0]

    def record_output(path: str, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        kept = first_tensor(output)
        seen.outputs[path] = kept.clone() if copies else kept

    def stop(_module: nn.Module, *_seen: Any) -> None:
        raise _StopForwardError

    with ExitStack() as stack:
        for path in inputs_of:
            stack.enter_context(model.get_submodule(path).register_forward_pre_hook(partial(record_input, path)))
        for path in outputs_of:
            stack.enter_context(model.get_submodule(path).register_forward_hook(partial(record_output, path)))
        if stop_before is not None:
            stack.enter_context(model.get_submodule(stop_before).register_forward_pre_hook(stop))
        if stop_after is not None:
            stack.enter_context(model.get_submodule(stop_after).register_forward_hook(stop))
        with suppress(_StopForwardError):
            yield seen


@contextmanager
def replace(model: nn.Module, path: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass the output of one module through ``change`` during the forward passes inside the block."""

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return change(output)
        changed = (change(output[0]), *output[1:])
        return type(output)(*changed) if hasattr(output, "_fields") else type(output)(changed)

    with model.get_submodule(path).register_forward_hook(hook):
        yield


@contextmanager
def returning(modules: Sequence[nn.Module], value: Any) -> Iterator[None]:
    """Inside the block the modules return a value at once, whatever they are given."""
    earlier = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = lambda *_args, **_options: value
        yield
    finally:
        for module, forward in zip(modules, earlier, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward


@contextmanager
def resume_from(
    model: nn.Module, blocks: Sequence[str], layer: int, hidden: Tensor, *, as_tuple: int
) -> Iterator[None]:
    """Begin forward passes at a residual block, so that work below a layer that cannot change is not done again.

    The blocks below return stored states at once. The model's own forward still builds masks and positions, so this
    holds for every family.

    Args:
        blocks: paths of its residual blocks, in order.
        layer: index of the first block that really runs.
        hidden: what the block before it had returned, ``(rows, tokens, width)``; not used when ``layer`` is 0.
        as_tuple: length of the tuple that this family's blocks return; 0 where they return the states themselves.
    """
    states = (hidden, *(as_tuple - 1) * [None]) if as_tuple else hidden
    with returning([model.get_submodule(path) for path in blocks[:layer]], states):
        yield


@contextmanager
def select_before_head(head: nn.Module, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """Let the output head see only chosen states, so that logits cost nothing elsewhere.

    ``rows`` and ``positions`` within them are ``(n,)``; the logits come out as ``(1, n, vocabulary)`` in this order.
    """

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][rows, positions].unsqueeze(0), *args[1:])

    with head.register_forward_pre_hook(hook):
        yield


@contextmanager
def product_precision() -> Iterator[None]:
    """What precision products of float32 may be computed in is after the block as before it."""
    places = [torch.backends, *_products()]
    kept, older = [getattr(place, _PRECISION, None) for place in places], _older_precision()
    try:
        yield
    finally:
        if older is not None and older != _older_precision():
            torch.set_float32_matmul_precision(older)
        for place, precision in zip(places, kept, strict=True):
            if precision is not None:
                setattr(place, _PRECISION, precision)


def _products() -> list[Any]:
    """Where torch keeps the precision of products; nowhere before its version 2.9."""
    found = [getattr(backend, "matmul", None) for backend in (torch.backends.cuda, torch.backends.mkldnn)]
    return [place for place in found if hasattr(place, _PRECISION)]


def _older_precision() -> str | None:
    """As the older of torch's two ways to say it has it; None where only the newer has been used, which it refuses."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; after it each module is in its own mode again, whatever the others' are.

    Products of float32 are computed in float32 there, TF32 allowed or not: that keeps 10 bits of 23, so that answers
    would hang on how many rows are read at a time, and on what a trainer has switched on meanwhile.
    """
    training = [module for module in model.modules() if module.training]
    with product_precision():
        if _older_precision() not in (None, "highest"):
            torch.set_float32_matmul_precision("highest")
        for place in _products():
            setattr(place, _PRECISION, "ieee")
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside the block; both as before after it, one by one."""
    trainable = [parameter.requires_grad_(False) for parameter in model.parameters() if parameter.requires_grad]
    try:
        with evaluation_mode(model), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def as_stored(model: nn.Module) -> Iterator[None]:
    """Inside the block the model computes in the precision of its stored weights, whatever accelerate's mixed precision
    has put around its forward."""
    own = vars(model)
    if "_original_forward" not in own:
        yield
        return
    wrapped, model.forward = own["forward"], own["_original_forward"]
    try:
        yield
    finally:
        model.forward = wrapped
