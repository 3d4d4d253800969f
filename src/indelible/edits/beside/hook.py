"""Edits that change no weight: hooks that stand beside a module and act while it is in evaluation mode.

A model in training runs as if no adapter were there, so that its weights are tuned by the data alone; held-out losses
and exams, which are taken in evaluation mode, see it. Weights, state dict and fingerprint are those of the model.

On one module the adapter of a kind that came last is the one that acts. It has to hold whatever the ones before it
hold (see ``Adapter.continues``), so that none is silenced unawares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from indelible.edits.deltas.delta import Edit
from indelible.errors import EditError


class Adapter(Edit):
    """An edit that acts beside a module of the model. Kinds implement ``place``, ``presence`` and ``continues``."""

    @abstractmethod
    def place(self, model: PreTrainedModel) -> nn.Module:
        """The module that the hooks are put on.

        Raises:
            EditError: if the model has none that would do.
        """

    @abstractmethod
    def presence(self, module: nn.Module) -> Presence:
        """The adapter at work on that module, hooks in place."""

    @abstractmethod
    def continues(self, other: Adapter) -> bool:
        """Whether this one was made from ``other``, holds what it holds, and may therefore stand in for it."""

    def install(self, model: PreTrainedModel) -> None:
        """Put the hooks in; ``remove`` takes them out again.

        Raises:
            EditError: if the adapter is in the model already, or another that this one does not continue.
        """
        self._enter(model)

    @contextmanager
    def installed(self, model: PreTrainedModel) -> Iterator[None]:
        """The hooks are in inside the block and out after it.

        Raises:
            EditError: as ``install``.
        """
        presence = self._enter(model)
        try:
            yield
        finally:
            presence.leave()

    def remove(self, model: PreTrainedModel) -> None:
        """Take out what ``install`` put in, of this adapter or of one loaded from the same files.

        Raises:
            EditError: if it is not in the model.
        """
        mine = [presence for presence in _presences(model) if self.equals(presence.adapter)]
        if not mine:
            raise EditError(f"This {self.kind} is not in the model.", "There is nothing to remove.")
        for presence in mine:
            presence.leave()

    def equals(self, other: Adapter) -> bool:
        """Whether two adapters have the same tensors and manifest, except for how their facts were answered."""
        if type(self) is not type(other) or self.manifest != other.manifest.but(answered=self.answered):
            return False
        mine, theirs = self.tensors(), other.tensors()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    def _enter(self, model: PreTrainedModel) -> Presence:
        module = self.place(model)
        for presence in Presence.all_on(module):
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
        return self.presence(module)


class Presence(ABC):
    """An adapter at work on one module: the forward hook itself, and whatever further hooks it needs.

    Args:
        adapter: what is at work.
        module: where.
    """

    def __init__(self, adapter: Adapter, module: nn.Module) -> None:
        self.adapter = adapter
        self.aside = False
        self.handles: list[RemovableHandle] = self.enter(module)

    @abstractmethod
    def enter(self, module: nn.Module) -> list[RemovableHandle]:
        """Register the hooks, ``self`` as a forward hook among them."""

    @abstractmethod
    def __call__(self, module: nn.Module, *seen: Any) -> Any:
        """The forward hook."""

    def leave(self) -> None:
        """Take the hooks out."""
        for handle in self.handles:
            handle.remove()

    def acts(self, module: nn.Module) -> bool:
        """Whether it is this one's turn: neither in training nor set aside, and no later adapter stands in for it."""
        return (
            not module.training
            and not self.aside
            and [one for one in Presence.all_on(module) if type(one) is type(self)][-1] is self
        )

    @staticmethod
    def all_on(module: nn.Module) -> list[Presence]:
        """Those on one module, in order of their coming."""
        return [hook for hook in module._forward_hooks.values() if isinstance(hook, Presence)]


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
        presence.leave()


def _presences(model: nn.Module) -> list[Presence]:
    return [presence for module in model.modules() for presence in Presence.all_on(module)]
