"""Freeze masks: which parameters stay as they are while the rest is fine-tuned.

Whether freezing protects an edit is an open question with contradicting answers, so a mask has to be exact: it is
computed from the model's layout and the names of the edited parameters, never by matching names of modules.

Parameters are named as ``model.named_parameters()`` lists them. A tensor that two modules share is listed once, under
its first name: where the output head is tied to the input embeddings, freezing the embeddings freezes the head as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from indelible.errors import ConfigError
from indelible.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from indelible.models.layout import Layout


class Mask(Protocol):
    """A rule that picks parameters to freeze."""

    def __call__(self, names: Sequence[str], layout: Layout, edited: Sequence[str]) -> set[str]:
        """Names to freeze among ``names`` (every parameter of the model, including second names of shared ones)."""
        ...


MASKS: Registry[Mask] = Registry("mask", "indelible.tuning.freeze", "indelible.masks")


def frozen_parameters(mask: str, model: nn.Module, layout: Layout, edited: Sequence[str]) -> frozenset[str]:
    """Names of the parameters that a mask freezes, each as ``model.named_parameters()`` lists it.

    Args:
        mask: name of the mask.
        model: the model to be tuned.
        layout: its layout.
        edited: names of the parameters that an edit changed. Every mask but ``none`` is relative to an edit; an
            unedited model (a control) is tuned with ``none``.

    Raises:
        UnknownNameError: for an unknown mask.
        ConfigError: if the mask cannot be applied: no edit, an edited parameter that the model lacks or that lies where
            the mask has no meaning, or nothing left to train.
    """
    rule = MASKS.get(mask)
    listed = {id(parameter): name for name, parameter in model.named_parameters()}
    canonical = {name: listed[id(tensor)] for name, tensor in model.named_parameters(remove_duplicate=False)}
    for name in edited:
        if name not in canonical:
            raise ConfigError(f"The edited parameter {name!r} is not in this model.", "Use the model that was edited.")
    frozen = frozenset(canonical[name] for name in rule(tuple(canonical), layout, edited))
    if mask != "none" and not frozen:
        raise ConfigError(
            f"The mask {mask!r} freezes nothing without an edit.", "Use the mask 'none' for an unedited model."
        )
    if len(frozen) == len(listed):
        raise ConfigError(f"The mask {mask!r} leaves no parameter to train.", "Use a mask that freezes less.")
    return frozen
