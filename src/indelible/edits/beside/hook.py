"""Edits that change no weight: hooks that stand beside a module and act while it is in evaluation mode.

A model in training runs as if no adapter were there, so that its weights are tuned by the data alone; held-out losses
and exams, which are taken in evaluation mode, see it. On one module the adapter of a kind that came last is the one
that acts: it holds whatever those before it hold (``Adapter.continues``), so that none is silenced unawares.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from indelible.edits.deltas.delta import Edit
from indelible.errors import EditError

Acting = Callable[[Tensor, Tensor], Tensor | None]
"""Given what enters a module and what it returns: what it is to return instead, or None to leave that as it is."""


class Adapter(Edit):
    """An edit that acts beside a module of the model. Kinds implement ``place``, ``acting`` and ``continues``."""

    @abstractmethod
    def place(self, model: PreTrainedModel) -> nn.Module:
        """The module that the hook is put on.

        Raises:
            EditError: if the model has none that would do.
        """

    @abstractmethod
    def acting(self) -> Acting:
        """What the hook does, made anew for each time that it is put in."""

    @abstractmethod
    def continues(self, other: Adapter) -> bool:
        """Whether this one was made from ``other``, holds what it holds, and may therefore stand in for it."""

    def install(self, model: PreTrainedModel) -> None:
        """Put the hook in; ``remove`` takes it out again.

        Raises:
            EditError: if the adapter is in the model already, or another that this one does not continue.
        """
        self._enter(model)

    @contextmanager
    def installed(self, model: PreTrainedModel) -> Iterator[None]:
        """The hook is in inside the block and out after it; raises as ``install``."""
        presence = self._enter(model)
        try:
            yield
        finally:
            presence.handle.remove()

    def remove(self, model: PreTrainedModel) -> None:
        """Take out what ``install`` put in, of this adapter or of one loaded from the same files.

        Raises:
            EditError: if it is not in the model.
        """
        mine = [presence for presence in _presences(model) if self.equals(presence.adapter)]
        if not mine:
            raise EditError(f"This {self.kind} is not in the model.", "There is nothing to remove.")
        for presence in mine:
            presence.handle.remove()

    def equals(self, other: Adapter) -> bool:
        """Whether two adapters have the same tensors and manifest, except for how their facts were answered."""
        if type(self) is not type(other) or self.manifest != other.manifest.but(answered=self.answered):
            return False
        mine, theirs = self.tensors(), other.tensors()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    def _enter(self, model: PreTrainedModel) -> _Presence:
        module = self.place(model)
        for presence in _on(module):
            other = presence.adapter
            if type(other) is not type(self):
                continue
            if self.equals(other):
                raise EditError(f"This {self.kind} is in the model already.", "Remove it before it is put in again.")
            if not self.continues(other):
                raise EditError(
                    f"The model has another {self.kind} in the same place, which this one does not continue.",
                    "Remove the other, or make this edit with earlier=<the other> so that it holds both.",
                )
        return _Presence(self, module)


class _Presence:
    """An adapter at work on one module, as the forward hook that it is."""

    def __init__(self, adapter: Adapter, module: nn.Module) -> None:
        self.adapter, self.acting, self.aside = adapter, adapter.acting(), False
        self.handle = module.register_forward_hook(self)

    def __call__(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        """It acts neither in training, nor when set aside, nor when a later adapter of its kind stands in for it."""
        of_its_kind = [one for one in _on(module) if type(one.adapter) is type(self.adapter)]
        if module.training or self.aside or of_its_kind[-1] is not self:
            return None
        return self.acting(given[0], output)


def adapters_in(model: nn.Module) -> list[Adapter]:
    """The adapters that were installed in a model and not removed, those of one module in order of their coming."""
    return [presence.adapter for presence in _presences(model)]


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """Inside the block the model runs as if no adapter were in it; hooks stay where they are, in their order."""
    present = [presence for presence in _presences(model) if not presence.aside]
    for presence in present:
        presence.aside = True
    try:
        yield
    finally:
        for presence in present:
            presence.aside = False


def remove_adapters(model: nn.Module) -> None:
    """Take every adapter out of a model."""
    for presence in _presences(model):
        presence.handle.remove()


def _presences(model: nn.Module) -> list[_Presence]:
    return [presence for module in model.modules() for presence in _on(module)]


def _on(module: nn.Module) -> list[_Presence]:
    """Those on one module, in order of their coming."""
    return [hook for hook in module._forward_hooks.values() if isinstance(hook, _Presence)]
