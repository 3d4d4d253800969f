"""What lets an update be undone to the byte, and found again in weights that are all one has.

Adding a difference to a weight and taking it away again does not give back the weight: floating point rounds, and in a
few percent of entries it shows. A seal therefore holds those entries, hashes of the weights before and after, and the
one number with which the projection of later weights on the difference is taken without the base model:
<W_now - W_base, D> = <W_now, D> - <W_base, D>.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from indelible.errors import FingerprintError


@dataclass(frozen=True)
class Fix:
    """Entries of a parameter that subtracting the difference would get wrong.

    Attributes:
        places: int32 flat positions.
        values: what stood there.
    """

    places: Tensor
    values: Tensor


@dataclass(frozen=True)
class Seal:
    """What an update's manifest says of the weights that it belongs to.

    Attributes:
        result: fingerprint of the model that the update leaves.
        before: by parameter, SHA-256 of the weights that the update was made for.
        after: by parameter, SHA-256 of the weights that it leaves.
        products: by parameter, the sum over all entries of weight times difference, before the update.
    """

    result: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    products: Mapping[str, float]

    @classmethod
    def read(cls, entries: Mapping[str, Any], parameters: tuple[str, ...]) -> Seal:
        """A seal out of a manifest.

        Raises:
            ValueError: if it is none, or not one of these parameters.
        """
        wanted = {"result", "before", "after", "products"}
        if not isinstance(entries, Mapping) or entries.keys() != wanted or not isinstance(entries["result"], str):
            raise ValueError("the seal is incomplete")
        seal = cls(**entries)
        for name, part, kind in (
            ("before", seal.before, str),
            ("after", seal.after, str),
            ("products", seal.products, float | int),
        ):
            if not isinstance(part, Mapping) or not all(isinstance(value, kind) for value in part.values()):
                raise ValueError(f"the seal's {name} are not what they should be")
        if any(set(part) != set(parameters) for part in (seal.before, seal.after, seal.products)):
            raise ValueError("the seal is of other parameters")
        return seal

    def state(self, name: str, digest: str) -> str:
        """What a parameter with that SHA-256 is: "absent", "exact" or "changed", see ``Remains``."""
        return {self.before[name]: "absent", self.after[name]: "exact"}.get(digest, "changed")


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


def remains(
    weights: Mapping[str, Tensor], digests: Mapping[str, str], parts: Mapping[str, Tensor], seal: Seal
) -> Remains:
    """How much of an update is in these weights.

    Args:
        weights: by parameter.
        digests: by parameter, that of the weights.
        parts: by parameter, the update's difference.
        seal: the update's.
    """
    sizes = {name: product(part, part) for name, part in parts.items()}
    states, shares = {}, {}
    for name, part in parts.items():
        states[name] = seal.state(name, digests[name])
        moved = product(weights[name], part) - seal.products[name]
        shares[name] = {"exact": 1.0, "absent": 0.0}.get(states[name], moved / sizes[name] if sizes[name] else 0.0)
    whole = sum(sizes.values())
    return Remains(states, shares, sum(shares[name] * sizes[name] for name in shares) / whole if whole else 0.0)


def check_there(digests: Mapping[str, str], seal: Seal, *, approximately: bool) -> None:
    """Make sure that an update can be taken out of some weights.

    Args:
        digests: by parameter, that of the weights.
        seal: the update's.
        approximately: whether weights that have changed since will do.

    Raises:
        FingerprintError: if the update is not in them, or they will not do.
    """
    others = [name for name, digest in digests.items() if digest != seal.after[name]]
    untouched = [name for name in others if digests[name] == seal.before[name]]
    if others and untouched == list(digests):
        raise FingerprintError(
            "The delta is not in this model: the parameters that it changes are bit for bit as before the edit.",
            "There is nothing to revert.",
        )
    if not others or approximately:
        return
    if untouched == others:
        raise FingerprintError(
            f"The delta is only partly in this model: {', '.join(others)} as before the edit, the others as it left"
            " them.",
            "Give the model that the edit left.",
        )
    raise FingerprintError(
        f"{next(name for name in others if name not in untouched)} is not as this delta left it: training or another"
        " delta changed it since, it was saved in another precision, or it never had the delta.",
        "Revert the edited model itself, or subtract the delta all the same: --approximately (in Python"
        " approximately=True).",
    )


def _bits(tensor: Tensor) -> Tensor:
    """Entries as integers, so that comparing them compares bits (0.0 and -0.0 differ)."""
    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)
