"""Freeze masks: which parameters stay as they are while the rest is fine-tuned.

Whether freezing protects an edit is an open question with contradicting answers, so a mask has to be exact: it is
computed from the model's layout and the names of the edited parameters, never by matching names of modules.

A mask is written as one text. Parts joined by ``+`` are frozen together, and a part may have an argument behind a
colon: ``edited-layers:1+embeddings+head`` freezes the edited layers, one more on either side, and both ends.

Parameters are named as ``model.named_parameters()`` lists them. A tensor that two modules share is listed once, under
its first name: where the output head is tied to the input embeddings, freezing the one freezes the other as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from indelible.errors import ConfigError, UnknownNameError
from indelible.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from indelible.models.layout import Layout


@dataclass(frozen=True)
class Masked:
    """What a mask chooses among: every parameter of the model, those of norms, and those that an edit changed, second
    names of shared ones included in all three; and what stands behind the mask's colon, empty without one."""

    names: Sequence[str]
    norms: frozenset[str]
    layout: Layout
    edited: Sequence[str]
    argument: str


@dataclass(frozen=True)
class MaskEntry:
    """A mask with what is known of it before there is a model.

    Attributes:
        rule: picks names to freeze among ``names``.
        about_edit: whether it is relative to an edit, and so has no meaning for an unedited model.
        argument: form of its argument, for messages; empty for masks without one.
        check: refuses an argument (ValueError) that cannot be read; may be called with an empty one.
    """

    rule: Callable[[Masked], set[str]]
    about_edit: bool = True
    argument: str = ""
    check: Callable[[str], object] | None = None


MASKS: Registry[MaskEntry] = Registry("mask", "indelible.tuning.freezing", group="indelible.masks")

NONE = "none"


def check_mask(text: str) -> str:
    """The mask as it is written everywhere; UnknownNameError for an unknown one, ConfigError for an argument that is
    missing, superfluous or unreadable."""
    return "+".join(f"{name}:{argument}" if argument else name for name, argument in _parts(text))


def about_edit(text: str) -> bool:
    """Whether some part of a mask is relative to an edit."""
    return any(MASKS.get(name).about_edit for name, _ in _parts(text))


def frozen_parameters(mask: str, model: nn.Module, layout: Layout, edited: Sequence[str]) -> frozenset[str]:
    """Names of the parameters that a mask freezes, each as ``model.named_parameters()`` lists it.

    Args:
        mask: as it is written (see above).
        model, layout: the model to be tuned.
        edited: names of the parameters that an edit changed; none for an unedited model (a control).

    Raises:
        UnknownNameError: for an unknown mask.
        ConfigError: if the mask cannot be applied: no edit where it goes by one, an edited parameter that the model
            lacks or that lies where the mask has no meaning, nothing that it freezes, or nothing left to train.
    """
    listed = {id(parameter): name for name, parameter in model.named_parameters()}
    canonical = {name: listed[id(tensor)] for name, tensor in model.named_parameters(remove_duplicate=False)}
    for name in edited:
        if name not in canonical:
            raise ConfigError(f"The edited parameter {name!r} is not in this model.", "Use the model that was edited.")
    norms = norm_parameters(model)
    changed = {canonical[name] for name in edited}
    edited = [name for name, first in canonical.items() if first in changed]  # by every name that they have
    frozen: set[str] = set()
    for part, argument in _parts(mask):
        if MASKS.get(part).about_edit and not edited:
            raise ConfigError(
                f"The mask {part!r} freezes nothing without an edit.", "Use the mask 'none' for an unedited model."
            )
        chosen = MASKS.get(part).rule(Masked(tuple(canonical), norms, layout, edited, argument))
        if not chosen and part != NONE:
            raise ConfigError(f"The mask {part!r} freezes nothing in this model.", "Leave it out, or use 'none'.")
        frozen |= {canonical[name] for name in chosen}
    if len(frozen) == len(listed):
        raise ConfigError(f"The mask {mask!r} leaves no parameter to train.", "Use a mask that freezes less.")
    return frozenset(frozen)


def norm_parameters(model: nn.Module) -> frozenset[str]:
    """Parameters of norms: of modules without children all of whose parameters are vectors, and which make nothing of
    how large their input is (activations with parameters, such as Apertus', do)."""
    found = set()
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        vectors = own and not any(module.children()) and all(parameter.dim() == 1 for parameter in own.values())
        if vectors and _normalises(module, next(iter(own.values()))):
            found |= {f"{path}.{name}" if path else name for name in own}
    return frozenset(found)


def _normalises(module: nn.Module, weight: Tensor) -> bool:
    import torch

    row = torch.linspace(-1, 2, len(weight), device=weight.device, dtype=weight.dtype)[None]
    with torch.no_grad():
        for beside in ((), (torch.ones_like(row),)):  # some are given a gate
            try:
                one, other = (module.forward(scale * row, *beside) for scale in (1, 8))
            except Exception:
                continue
            return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-3))
    return True


def describe_frozen(model: nn.Module, layout: Layout, frozen: Collection[str]) -> str:
    """How much is frozen, and where: whole layers and parts of layers as ranges, then other tensors by name."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    whole: list[int] = []
    partly: dict[str, list[int]] = {}
    for layer, block in enumerate(layout.blocks):
        inside = [name for name in sizes if name.startswith(f"{block}.")]
        held = [name.removeprefix(f"{block}.") for name in inside if name in frozen]
        if held and len(held) == len(inside):
            whole.append(layer)
        else:
            for part in held:
                partly.setdefault(part, []).append(layer)
    places = [f"layers {_ranges(whole)}"] if whole else []
    places += [f"{part} of layers {_ranges(layers)}" for part, layers in partly.items()]
    for name in sizes:
        if name in frozen and layout.layer_of(name) is None:
            tied = layout.tied and any(name.startswith(f"{module}.") for module in layout.embeddings)
            places.append(f"{name} (the head too: it is tied)" if tied else name)
    numbers = sum(sizes[name] for name in frozen)
    return f"{len(frozen)} of {len(sizes)} tensors, {numbers:,} of {sum(sizes.values()):,} numbers: {'; '.join(places)}"


def _ranges(layers: Sequence[int]) -> str:
    """Ascending numbers as ranges: 3-5, 8."""
    runs = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), lambda at: at[1] - at[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _parts(text: str) -> list[tuple[str, str]]:
    """Names and arguments, each checked."""
    parts = []
    for part in "".join(text.split()).replace("\N{PLUS-MINUS SIGN}", ":").split("+"):
        name, colon, argument = part.partition(":")
        if name not in MASKS.names():
            raise UnknownNameError("mask", name, MASKS.names())
        entry = MASKS.get(name)
        if argument and not entry.argument:
            raise ConfigError(f"The mask {name!r} takes no argument, but {argument!r} is given.", f"Write {name}.")
        if entry.check is not None:
            try:
                entry.check(argument)
            except ValueError:
                raise ConfigError(
                    f"The mask {part!r} cannot be read.", f"Write it as {name}:{entry.argument}."
                ) from None
        if colon and not argument:
            raise ConfigError(f"The mask {part!r} ends in a colon.", f"Write {name}, or give the argument.")
        parts.append((name, argument))
    return list(dict.fromkeys(parts))
