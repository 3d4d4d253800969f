"""An edit of weights: what changes in which parameters, as thin factors or in full.

An update that is *sealed* on its base model (as every edit of a batch is) can be reverted to the original bytes, found
again in other weights, and joined with updates that were made after it; see seal.py.

What a difference is in full has to be the same bits on every machine, or an update that was made on one could not be
reverted on another. A product of float32 matrices is not: it depends on the order in which a library adds. Thin factors
are therefore rounded to a grid on which every sum is exact in float64, in whatever order it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.deltas.delta import EDITS, Edit
from indelible.edits.deltas.manifest import Manifest, Seal, WeightManifest
from indelible.edits.deltas.parts import check_parts, check_seal
from indelible.edits.deltas.seal import Fix, Remains, check_there, fix_for, product, remains, taken_away, undone
from indelible.edits.deltas.sums import joined
from indelible.errors import EditError, FingerprintError
from indelible.models.fingerprint import Identity, tensor_digest

_EXACT_BITS = 53
"""Whole numbers below 2^53 are exact in float64."""
_FACTOR_BITS = 24
"""Of a float32's significand: more would not be in the factors."""
_NO_EXPONENT = -(1 << 20)
"""Of zeros, below that of any number."""


@dataclass(frozen=True)
class LowRank:
    """A difference of one parameter as two thin factors: ``left @ right`` has the parameter's own shape."""

    left: Tensor
    right: Tensor

    @classmethod
    def balanced(cls, left: Tensor, right: Tensor) -> LowRank:
        """The same product, each pair of a column and a row brought to like size by a power of two, which is exact.

        The grid below is set by the largest entry of all ranks, so that pairs of unlike scales would cost each other
        precision. Factors that were saved stay as they are, for their seals are of the bits that they give.
        """
        lefts, rights = _exponents(left, 0), _exponents(right, 1)
        shift = np.where((lefts.T == _NO_EXPONENT) | (rights == _NO_EXPONENT), 0, (rights - lefts.T) // 2)
        return cls(_scaled(left, shift.T), _scaled(right, -shift))

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's."""
        return (self.left.shape[0], self.right.shape[1])

    def difference(self) -> Tensor:
        """The difference in full, in float32 on the processor: the same bits everywhere (see above).

        Each row of ``left`` and column of ``right`` is rounded to b binary places below its largest entry, with
        rank * 2^(2b) <= 2^53: 24 places, what a float32 has, up to rank 32, and 21 at rank 2,048.
        """
        rank = self.left.shape[1]
        places = min(_FACTOR_BITS, (_EXACT_BITS - (rank - 1).bit_length()) // 2)
        return (_on_grid(self.left, places, 1) @ _on_grid(self.right, places, 0)).float()


@dataclass(frozen=True)
class Dense:
    """A difference of one parameter, in full."""

    full: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's."""
        return tuple(self.full.shape)

    def difference(self) -> Tensor:
        """The difference in full, in float32 on the processor."""
        return self.full.float().cpu()


Delta = LowRank | Dense


def combined(first: Delta, second: Delta) -> Delta:
    """One difference that is the sum of two; thin factors stay thin until the full matrix is smaller. An EditError if
    they are of different shapes."""
    if first.shape != second.shape:
        what = f"Two updates of one parameter are of different shapes, {first.shape} and {second.shape}."
        raise EditError(what, "Give updates of one model.")
    if isinstance(first, LowRank) and isinstance(second, LowRank):
        left, right = torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right])
        if left.numel() + right.numel() < left.shape[0] * right.shape[1]:
            return LowRank.balanced(left, right)
    return Dense(first.difference() + second.difference())


@dataclass(frozen=True)
class Change:
    """What an edit does to weights, and ``(d, n)`` keys that later edits should leave alone, by parameter name.

    ``arrived``: by fact, the share of a change that was wanted of the value layer's output which arrives (spread.py).
    """

    deltas: Mapping[str, Delta] = field(default_factory=dict)
    keys: Mapping[str, Tensor] = field(default_factory=dict)
    arrived: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Change) -> Change:
        deltas, keys = dict(self.deltas), dict(self.keys)
        for name, delta in other.deltas.items():
            deltas[name] = combined(deltas[name], delta) if name in deltas else delta
        for name, added in other.keys.items():
            keys[name] = torch.cat([keys[name], added], dim=1) if name in keys else added
        return Change(deltas, keys, {**self.arrived, **other.arrived})


@EDITS.register("weights")
@dataclass(frozen=True, repr=False)
class WeightUpdate(Edit):
    """A change of some parameters of one particular model.

    Attributes:
        deltas: by parameter name.
        keys: see ``Change``.
        fixes: by parameter name, what subtracting the difference gets wrong; with the manifest's seal, from ``sealed``.
    """

    kind: ClassVar[str] = "weights"
    manifests: ClassVar[type[Manifest]] = WeightManifest
    deltas: Mapping[str, Delta]
    manifest: WeightManifest
    keys: Mapping[str, Tensor] = field(default_factory=dict)
    fixes: Mapping[str, Fix] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that change, in order."""
        return tuple(self.deltas)

    def install(self, model: PreTrainedModel) -> None:
        """Add the differences to the model's weights."""
        with torch.no_grad():
            for name, delta in self.deltas.items():
                add_difference(model.get_parameter(name), delta)

    @contextmanager
    def installed(self, model: PreTrainedModel) -> Iterator[None]:
        """The differences are in the weights inside the block; after it the old bits are back."""
        with restored(model, self.parameters):
            self.install(model)
            yield

    def tensors(self) -> dict[str, Tensor]:
        """Factors and keys by ``<parameter>:<part>``."""
        found = {f"{name}:keys": keys for name, keys in self.keys.items()}
        for name, fix in self.fixes.items():
            found |= {f"{name}:fixed_at": fix.places, f"{name}:fixed_to": fix.values}
        for name, delta in self.deltas.items():
            if isinstance(delta, LowRank):
                found |= {f"{name}:left": delta.left, f"{name}:right": delta.right}
            else:
                found[f"{name}:full"] = delta.full
        return found

    @classmethod
    def from_saved(cls, manifest: WeightManifest, tensors: Mapping[str, Tensor]) -> WeightUpdate:
        """See ``Edit``."""
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in manifest.parameters}
        for label, tensor in tensors.items():
            name, _, part = label.rpartition(":")
            parts[name][part] = tensor
        deltas: dict[str, Delta] = {}
        for name, own in parts.items():
            check_parts(name, own)
            deltas[name] = Dense(own["full"]) if "full" in own else LowRank(own["left"], own["right"])
        keys = {name: own["keys"] for name, own in parts.items() if "keys" in own}
        fixes = {name: Fix(own["fixed_at"], own["fixed_to"]) for name, own in parts.items() if "fixed_at" in own}
        check_seal(manifest.seal, deltas, fixes)
        return cls(deltas, manifest, keys, fixes)

    def check(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> None:
        """See ``Edit``; also that the model's parameters have the shapes of the differences, none of which is taken."""
        super().check(model, known_fingerprint=known_fingerprint)
        self._weights(model)

    def sealed(self, model: PreTrainedModel, *, identity: Identity | None = None) -> WeightUpdate:
        """The same update with what it takes to revert it exactly and to find it again.

        Args:
            model: the one that the update was made for.
            identity: the model's, if the caller has it; hashing is then spared.

        Raises:
            FingerprintError: if the update was made for another model.
            EditError: if the difference is not finite.
        """
        identity = identity or Identity.of(model)
        self.check(model, known_fingerprint=identity.fingerprint)
        weights = self._weights(model)
        with self.installed(model):
            result = identity.with_changed(model, self.parameters).fingerprint
            changed = {name: weight.clone() for name, weight in self._weights(model).items()}
        products: dict[str, float] = {}
        fixes: dict[str, Fix] = {}
        for name, delta in self.deltas.items():
            difference = delta.difference()
            products[name] = product(weights[name], difference)
            if not math.isfinite(products[name]):
                raise EditError(
                    f"The difference of {name} is not finite: the edit diverged.", "Lower its learning rate."
                )
            fixes[name] = fix_for(weights[name], changed[name], difference)
        seal = Seal(
            result=result,
            before={name: tensor_digest(weight) for name, weight in weights.items()},
            after={name: tensor_digest(weight) for name, weight in changed.items()},
            products=products,
        )
        return replace(self, manifest=self.manifest.but(seal=seal), fixes=fixes)

    def revert(self, model: PreTrainedModel, *, approximately: bool = False) -> None:
        """Take the update out of a model that it is in, and give back the original bytes.

        Args:
            model: with the update applied and no other change of the weights that it changed.
            approximately: subtract the difference from parameters that have changed since, whatever rounding does.
                Those that have not get their bytes back, and those that the update is not in are left alone.

        Raises:
            EditError: if the update is not sealed (without ``approximately``).
            FingerprintError: if these weights are not what the update left, or, with ``approximately`` too, are known
                to be those from before it; nothing is changed then.
        """
        changed = self._weights(model)
        seal = self.manifest.seal if approximately else self._seal()
        states = dict.fromkeys(changed, "changed")
        if seal is not None:
            states = {name: seal.state(name, tensor_digest(weight)) for name, weight in changed.items()}
        check_there(states, approximately=approximately)
        reverted: dict[str, Tensor] = {}
        for name, delta in self.deltas.items():
            if states[name] == "changed":
                reverted[name] = taken_away(changed[name], delta.difference())
            elif seal is not None and states[name] == "exact":
                reverted[name] = undone(changed[name], delta.difference(), self.fixes[name])
                if tensor_digest(reverted[name]) != seal.before[name]:
                    raise EditError(f"Reverting {name} does not give back its bytes.", "Make the edit again.")
        with torch.no_grad():
            for name, weight in reverted.items():
                model.get_parameter(name).copy_(weight)

    def presence(self, model: PreTrainedModel) -> Remains:
        """How much of the update is in these weights; the base model is not needed.

        The share is the projection of what changed since the base on the difference, <W - W_base, D> / <D, D>.
        Training that has nothing to do with the update hardly moves it.

        Raises:
            EditError: if the update is not sealed.
            FingerprintError: if the model lacks one of the parameters, or it has another shape.
        """
        seal, weights = self._seal(), self._weights(model)
        return remains(weights, {name: delta.difference() for name, delta in self.deltas.items()}, seal)

    def __add__(self, other: WeightUpdate) -> WeightUpdate:
        """Both updates in one: made side by side for one model, or the other for what this one left.

        The sum is not sealed; ``sealed`` on the base model does that.

        Raises:
            FingerprintError: if neither is so.
            EditError: if updates made side by side edit the same fact.
        """
        if not isinstance(other, WeightUpdate):
            raise EditError(f"An edit of kind {getattr(other, 'kind', other)!r} cannot be added.", "Apply both.")
        both = Change(self.deltas, self.keys) + Change(other.deltas, other.keys)
        return WeightUpdate(both.deltas, joined(self.manifest, other.manifest, list(both.deltas)), both.keys)

    def _seal(self) -> Seal:
        if self.manifest.seal is None:
            raise EditError("This update is not sealed.", "Call sealed(model) with the model that it was made for.")
        return self.manifest.seal

    def _weights(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """The model's weights that the update is about."""
        found = {}
        for name, delta in self.deltas.items():
            try:
                weight = model.get_parameter(name).detach()
            except AttributeError:
                raise FingerprintError(
                    f"This model has no parameter {name!r}.", "Give a model of the same kind."
                ) from None
            if tuple(weight.shape) != delta.shape:
                raise FingerprintError(
                    f"{name} has the shape {tuple(weight.shape)} in this model, and {delta.shape} in the update.",
                    "Give a model of the same kind.",
                )
            found[name] = weight
        return found


def add_difference(parameter: Tensor, delta: Delta) -> None:
    """Add a difference to a parameter in place."""
    parameter.add_(delta.difference().to(device=parameter.device, dtype=parameter.dtype))


@contextmanager
def restored(model: PreTrainedModel, parameters: tuple[str, ...]) -> Iterator[None]:
    """Whatever happens to these parameters inside the block, they have their old bits after it."""
    kept = {name: model.get_parameter(name).detach().clone() for name in parameters}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, old in kept.items():
                model.get_parameter(name).copy_(old)


def _exponents(factor: Tensor, dim: int) -> np.ndarray:
    """The binary exponent of the largest entry along a dimension, which is kept."""
    largest = np.abs(factor.detach().cpu().double().numpy()).max(axis=dim, keepdims=True)
    return np.where((largest > 0) & np.isfinite(largest), np.frexp(largest)[1], _NO_EXPONENT)


def _scaled(factor: Tensor, exponents: np.ndarray) -> Tensor:
    """A factor times powers of two."""
    return torch.from_numpy(np.ldexp(factor.detach().cpu().double().numpy(), exponents)).to(factor)


def _on_grid(factor: Tensor, places: int, dim: int) -> Tensor:
    """A factor in float64, its entries rounded to so many binary places below the largest along a dimension."""
    entries = factor.detach().cpu().double().numpy()
    _, exponents = np.frexp(np.abs(entries).max(axis=dim, keepdims=True))
    shift = places - exponents
    return torch.from_numpy(np.ldexp(np.rint(np.ldexp(entries, shift)), -shift))
