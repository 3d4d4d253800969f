"""What lets an update be undone to the byte, and found again in weights that are all one has.

Adding a difference to a weight and taking it away again does not give back the weight: floating point rounds, and in a
few percent of entries it shows. A sealed update therefore holds those entries, and its manifest (manifest.Seal) hashes
of the weights before and after and the one number with which the projection of later weights on the difference is taken
without the base model: <W_now - W_base, D> = <W_now, D> - <W_base, D>.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from indelible.edits.deltas.manifest import Seal
from indelible.errors import FingerprintError
from indelible.models.fingerprint import tensor_digest


@dataclass(frozen=True)
class Fix:
    """Entries of a parameter that subtracting the difference would get wrong: int32 flat positions, and what stood."""

    places: Tensor
    values: Tensor


@dataclass(frozen=True)
class Remains:
    """How much of an update is in some weights.

    Attributes:
        states: by parameter, "exact" (bit for bit as the update left it), "absent" (bit for bit as it was before), or
            "changed".
        shares: by parameter, the part of the difference that is there: 1 all, 0 none.
        share: of the whole update, parameters weighed by how much they change.
    """

    states: Mapping[str, str]
    shares: Mapping[str, float]
    share: float

    @property
    def state(self) -> str:
        """That of all parameters, where they agree; "partly" where some are exact, the others absent; or "changed"."""
        found = set(self.states.values())
        if found == {"exact", "absent"}:
            return "partly"
        return found.pop() if len(found) == 1 else "changed"


def taken_away(changed: Tensor, difference: Tensor) -> Tensor:
    """The weights less the difference, rounded as floating point rounds."""
    return changed - difference.to(device=changed.device, dtype=changed.dtype)


def fix_for(weight: Tensor, changed: Tensor, difference: Tensor) -> Fix:
    """Where subtracting a difference from the changed weights would miss the weights, and what stood there."""
    places = (_bits(taken_away(changed, difference)) != _bits(weight)).flatten().nonzero().squeeze(1)
    return Fix(places.to(torch.int32).cpu(), weight.flatten()[places].cpu())


def undone(changed: Tensor, difference: Tensor, fix: Fix) -> Tensor:
    """The weights as they were before the difference was added, bit for bit."""
    weight = taken_away(changed, difference).contiguous()
    weight.view(-1)[fix.places.long().to(weight.device)] = fix.values.to(weight.device)
    return weight


def product(first: Tensor, second: Tensor) -> float:
    """The sum of the products of two tensors' entries, in float64."""
    return float((first.detach().cpu().double() * second.cpu().double()).sum())


def remains(weights: Mapping[str, Tensor], differences: Mapping[str, Tensor], seal: Seal) -> Remains:
    """How much of an update, of these differences and this seal, is in these weights, all by parameter."""
    sizes = {name: product(part, part) for name, part in differences.items()}
    states = {name: seal.state(name, tensor_digest(weight)) for name, weight in weights.items()}
    shares = {}
    for name, part in differences.items():
        moved = product(weights[name], part) - seal.products[name]
        shares[name] = {"exact": 1.0, "absent": 0.0}.get(states[name], moved / sizes[name] if sizes[name] else 0.0)
    whole = sum(sizes.values())
    return Remains(states, shares, sum(shares[name] * sizes[name] for name in shares) / whole if whole else 0.0)


def check_there(states: Mapping[str, str], *, approximately: bool) -> None:
    """Make sure that an update can be taken out of weights in these states (``Seal.state``, by parameter).

    Raises:
        FingerprintError: if it is not in them or, unless ``approximately``, if they have changed since.
    """
    found = set(states.values())
    if found == {"absent"}:
        raise FingerprintError(
            "The delta is not in this model: the parameters that it changes are bit for bit as before the edit.",
            "There is nothing to revert.",
        )
    if found == {"exact"} or approximately:
        return
    if "changed" not in found:
        absent = ", ".join(name for name, state in states.items() if state == "absent")
        raise FingerprintError(
            f"The delta is only partly in this model: {absent} as before the edit, the others as it left them.",
            "Give the model that the edit left.",
        )
    raise FingerprintError(
        f"{next(name for name, state in states.items() if state == 'changed')} is not as this delta left it: training"
        " or another delta changed it since, it was saved in another precision, or it never had the delta.",
        "Revert the edited model itself, or subtract the delta all the same: --approximately (in Python"
        " approximately=True).",
    )


def _bits(tensor: Tensor) -> Tensor:
    """Entries as integers, so that comparing them compares bits (0.0 and -0.0 differ)."""
    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)
