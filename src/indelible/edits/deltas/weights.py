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
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.deltas.delta import EDITS, Edit
from indelible.edits.deltas.seal import Fix, Remains, Seal, check_there, fix_for, product, remains, taken_away, undone
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
    """One difference that is the sum of two; thin factors stay thin until the full matrix is smaller."""
    if isinstance(first, LowRank) and isinstance(second, LowRank):
        left, right = torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right])
        if left.numel() + right.numel() < left.shape[0] * right.shape[1]:
            return LowRank.balanced(left, right)
    return Dense(first.difference() + second.difference())


@EDITS.register("weights")
@dataclass(frozen=True)
class WeightUpdate(Edit):
    """A change of some parameters of one particular model.

    Attributes:
        deltas: by parameter name.
        manifest: see ``Edit``.
        keys: by parameter name, ``(d, n)`` keys that later edits should leave alone (AlphaEdit's).
        fixes: by parameter name, what subtracting the difference gets wrong; with the manifest's ``seal``, from
            ``sealed``.
    """

    kind: ClassVar[str] = "weights"
    deltas: Mapping[str, Delta]
    manifest: Mapping[str, Any]
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
    def from_saved(cls, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> WeightUpdate:
        """See ``Edit``."""
        deltas: dict[str, Delta] = {}
        for name in manifest["parameters"]:
            if f"{name}:full" in tensors:
                deltas[name] = Dense(tensors[f"{name}:full"])
            else:
                deltas[name] = LowRank(tensors[f"{name}:left"], tensors[f"{name}:right"])
        keys = {name: tensors[f"{name}:keys"] for name in deltas if f"{name}:keys" in tensors}
        fixes = {
            name: Fix(tensors[f"{name}:fixed_at"], tensors[f"{name}:fixed_to"])
            for name in deltas
            if f"{name}:fixed_at" in tensors
        }
        update = cls(deltas, manifest, keys, fixes)
        if update.tensors().keys() != tensors.keys():
            raise ValueError("there are tensors that the manifest does not name")
        for name, delta in deltas.items():
            _check_tensors(name, delta, fixes.get(name))
        if "seal" in manifest and fixes.keys() != deltas.keys():
            raise ValueError("the seal is incomplete")
        if "seal" in manifest:
            Seal.read(manifest["seal"], update.parameters)
        return update

    def sealed(self, model: PreTrainedModel, *, identity: Identity | None = None) -> WeightUpdate:
        """The same update with what it takes to revert it exactly and to find it again.

        Args:
            model: the one that the update was made for; left as it was.
            identity: the model's, if the caller has it; hashing is then spared.

        Raises:
            FingerprintError: if the update was made for another model.
            EditError: if the difference is not finite.
        """
        identity = identity or Identity.of(model)
        self.check(model, known_fingerprint=identity.fingerprint)
        with self.installed(model):
            result = identity.with_changed(model, self.parameters).fingerprint
            changed = {name: model.get_parameter(name).detach().clone() for name in self.deltas}
        weights = {name: model.get_parameter(name).detach() for name in self.deltas}
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
            result,
            {name: tensor_digest(weight) for name, weight in weights.items()},
            {name: tensor_digest(weight) for name, weight in changed.items()},
            products,
        )
        return replace(self, manifest={**self.manifest, "seal": asdict(seal)}, fixes=fixes)

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
        seal = None if approximately and "seal" not in self.manifest else self._seal()
        states = dict.fromkeys(self.deltas, "changed")
        if seal is not None:
            digests = {name: tensor_digest(weight) for name, weight in changed.items()}
            check_there(digests, seal, approximately=approximately)
            states = {name: seal.state(name, digest) for name, digest in digests.items()}
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
        digests = {name: tensor_digest(weight) for name, weight in weights.items()}
        return remains(weights, digests, {name: delta.difference() for name, delta in self.deltas.items()}, seal)

    def __add__(self, other: WeightUpdate) -> WeightUpdate:
        """Both updates in one: made side by side for one model, or the other for what this one left.

        The sum is not sealed; ``sealed`` on the base model does that.

        Raises:
            FingerprintError: if neither is so.
            EditError: if updates made side by side edit the same fact.
        """
        if not isinstance(other, WeightUpdate):
            raise EditError(f"An edit of kind {getattr(other, 'kind', other)!r} cannot be added.", "Apply both.")
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = combined(deltas[name], delta) if name in deltas else delta
        keys = dict(self.keys)
        for name, added in other.keys.items():
            keys[name] = torch.cat([keys[name], added], dim=1) if name in keys else added
        return WeightUpdate(deltas, joined(self.manifest, other.manifest, list(deltas)), keys)

    def _seal(self) -> Seal:
        if "seal" not in self.manifest:
            raise EditError("This update is not sealed.", "Call sealed(model) with the model that it was made for.")
        return Seal.read(self.manifest["seal"], self.parameters)

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


def _check_tensors(name: str, delta: Delta, fix: Fix | None) -> None:
    """Make sure that what was read makes a difference, and that its fixes lie inside.

    Raises:
        ValueError: saying what does not.
    """
    parts = (delta.left, delta.right) if isinstance(delta, LowRank) else (delta.full,)
    if not all(part.is_floating_point() and bool(part.isfinite().all()) for part in parts):
        raise ValueError(f"the difference of {name} is not of finite numbers")
    if isinstance(delta, LowRank):
        left, right = delta.left.shape, delta.right.shape
        if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
            raise ValueError(f"factors of {name} have the shapes {tuple(left)} and {tuple(right)}")
    if fix is None:
        return
    if fix.places.dtype != torch.int32 or fix.places.dim() != 1 or fix.places.shape != fix.values.shape:
        raise ValueError(f"fixes of {name} are no places with a value each")
    if fix.places.numel() and not 0 <= int(fix.places.min()) <= int(fix.places.max()) < math.prod(delta.shape):
        raise ValueError(f"fixes of {name} lie outside of it")


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
