"""What the tensors of a saved update have to be before anything is made of them: a file may say whatever it likes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from indelible.edits.deltas.manifest import Seal

DIMENSIONS = {"full": None, "left": 2, "right": 2, "keys": 2, "fixed_at": 1, "fixed_to": 1}
"""Of each part of a parameter's difference; None for any."""


def check_parts(name: str, own: Mapping[str, Tensor]) -> None:
    """A ValueError unless these saved tensors of a parameter can be parts of one difference; no product is taken."""
    for part, tensor in own.items():
        if part not in DIMENSIONS or DIMENSIONS[part] not in (None, tensor.dim()):
            raise ValueError(f"{name}:{part} of {tensor.dim()} dimensions is no part of an update")
        if tensor.dtype != torch.int32 if part == "fixed_at" else not tensor.is_floating_point():
            raise ValueError(f"{name}:{part} is {tensor.dtype}")
    if ("full" in own) == ("left" in own or "right" in own) or ("fixed_at" in own) != ("fixed_to" in own):
        raise ValueError(f"{name} has the parts {', '.join(sorted(own)) or 'none'}")
    if "full" not in own and own["left"].shape[1] != own["right"].shape[0]:
        raise ValueError(f"factors of {name} have {own['left'].shape[1]} columns and {own['right'].shape[0]} rows")
    if "fixed_at" in own:
        places = own["fixed_at"]
        entries = own["full"].numel() if "full" in own else own["left"].shape[0] * own["right"].shape[1]
        beyond = len(places) and (int(places.min()) < 0 or int(places.max()) >= entries)
        if beyond or len(places) != len(own["fixed_to"]):
            raise ValueError(f"{name}:fixed_at names entries that {name} has not")


def check_seal(seal: Seal | None, deltas: Iterable[str], fixes: Iterable[str]) -> None:
    """A ValueError if a seal is not of all parameters that change."""
    named: list[Iterable[str]] = [] if seal is None else [seal.before, seal.after, seal.products, fixes]
    if any(set(one) != set(deltas) for one in named):
        raise ValueError("the seal is not of the parameters that change")
