"""An edit of weights: what changes in which parameters, as thin factors or in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.edit import EDITS, Edit


@dataclass(frozen=True)
class LowRank:
    """A difference of one parameter as two thin factors: ``left @ right`` has the parameter's own shape."""

    left: Tensor
    right: Tensor

    def difference(self) -> Tensor:
        """The difference in full, computed on the processor in float32 so that it is the same everywhere."""
        return self.left.float().cpu() @ self.right.float().cpu()


@dataclass(frozen=True)
class Dense:
    """A difference of one parameter, in full."""

    full: Tensor

    def difference(self) -> Tensor:
        """The difference in full, on the processor in float32."""
        return self.full.float().cpu()


Delta = LowRank | Dense


def combined(first: Delta, second: Delta) -> Delta:
    """One difference that is the sum of two; thin factors stay thin until the full matrix is smaller."""
    if isinstance(first, LowRank) and isinstance(second, LowRank):
        left, right = torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right])
        if left.numel() + right.numel() < left.shape[0] * right.shape[1]:
            return LowRank(left, right)
    return Dense(first.difference() + second.difference())


@EDITS.register("weights")
@dataclass(frozen=True)
class WeightUpdate(Edit):
    """A change of some parameters of one particular model.

    Attributes:
        deltas: by parameter name.
        manifest: see ``Edit``.
        keys: by parameter name, ``(d, n)`` keys that later edits should leave alone (AlphaEdit's).
    """

    kind: ClassVar[str] = "weights"
    deltas: Mapping[str, Delta]
    manifest: Mapping[str, Any]
    keys: Mapping[str, Tensor] = field(default_factory=dict)

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
        update = cls(deltas, manifest, keys)
        if update.tensors().keys() != tensors.keys():
            raise ValueError("there are tensors that the manifest does not name")
        return update


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
