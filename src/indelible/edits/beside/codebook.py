"""A codebook beside one memory: keys, the values that stand in for what the memory returns, and deferral radii.

A position whose key (what enters the MLP's output projection) lies within an entry's radius gets the entry's value; at
every other position the memory is deferred to (GRACE, Hartvigsen et al. 2023, arXiv 2211.11031). Each position is
looked up by itself, be it of the prompt or generated, so that a text gives the same answers read at once or token by
token over an attention cache, alone or in a batch, padded on either side. (The authors' code looks up the prompt's last
token, or with a cache each token that is generated, and not what stands before; its answers change with the cache.)

Shape suffixes: n entries, d key width, o hidden width, q looked-up positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.edits.beside.hook import Acting, Adapter
from indelible.edits.deltas.delta import EDITS
from indelible.edits.deltas.manifest import Manifest
from indelible.errors import FingerprintError

_WEIGHT = ".weight"
# Keys nearer than this, in norms of the key, differ by rounding only: they are the same prompt's.
_SAME_KEY = 1e-4


@dataclass(frozen=True)
class Entries:
    """What a codebook holds.

    Attributes:
        keys_nd: float32.
        values_no: float32, what the memory is made to return.
        radii_n: deferral radii, in the units of the keys.
        objects: what each entry's value was made to say; entries with the same object are of one kind.
    """

    keys_nd: Tensor
    values_no: Tensor
    radii_n: Tensor
    objects: tuple[str, ...]

    @classmethod
    def empty(cls, key_width: int, hidden_size: int) -> Entries:
        """No entries."""
        return cls(torch.zeros(0, key_width), torch.zeros(0, hidden_size), torch.zeros(0), ())

    def to(self, device: torch.device) -> Entries:
        """The same on another device."""
        return Entries(self.keys_nd.to(device), self.values_no.to(device), self.radii_n.to(device), self.objects)

    def with_entry(self, key_d: Tensor, value_o: Tensor, spoken: str, radius: float) -> Entries:
        """The entries after one more edit, by the rules of GRACE's algorithm 1.

        - Far from every key (beyond the nearest entry's radius and its own together): it is added.
        - Near an entry with the same object: that entry's radius grows to reach the key, and serves it.
        - Near an entry with another object: it is added, and neither reaches further than half the way to the other.

        Where the key is that of an entry and the object is another, half the distance would be nothing, a case that
        the paper leaves open: the same prompt is edited again, and the entry says the later object from now on.
        """
        if not self.objects:
            return self._appended(key_d, value_o, spoken, radius)
        distances_q, nearest_q = nearest(key_d.unsqueeze(0), self.keys_nd)
        distance, entry = float(distances_q), int(nearest_q)
        reach = float(self.radii_n[entry])
        if distance > reach + radius:
            return self._appended(key_d, value_o, spoken, radius)
        radii_n, values_no = self.radii_n.clone(), self.values_no.clone()
        if spoken == self.objects[entry]:
            radii_n[entry] = max(reach, distance)
            return replace(self, radii_n=radii_n)
        if distance <= _SAME_KEY * float(key_d.norm()):
            values_no[entry] = value_o
            objects = (*self.objects[:entry], spoken, *self.objects[entry + 1 :])
            return replace(self, values_no=values_no, objects=objects)
        radii_n[entry] = min(reach, distance / 2)
        return replace(self, radii_n=radii_n)._appended(key_d, value_o, spoken, min(radius, distance / 2))

    def _appended(self, key_d: Tensor, value_o: Tensor, spoken: str, radius: float) -> Entries:
        return Entries(
            torch.cat([self.keys_nd, key_d.unsqueeze(0)]),
            torch.cat([self.values_no, value_o.unsqueeze(0)]),
            torch.cat([self.radii_n, self.radii_n.new_tensor([radius])]),
            (*self.objects, spoken),
        )


def nearest(queries_qd: Tensor, keys_nd: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance of each query to the nearest key, and which one that is."""
    # The quicker way by a matrix product loses small distances between long keys to rounding.
    distances_qn = torch.cdist(queries_qd, keys_nd, compute_mode="donot_use_mm_for_euclid_dist")
    found = distances_qn.min(dim=-1)
    return found.values, found.indices


class CodebookManifest(Manifest):
    """What a codebook says of itself: also the object of each entry."""

    kind: Literal["codebook"] = "codebook"
    objects: tuple[str, ...]


@EDITS.register("codebook")
@dataclass(frozen=True, repr=False)
class Codebook(Adapter):
    """A codebook for one memory of one particular model.

    Attributes:
        entries: what it holds, on the processor.
        manifest: see ``Edit``; its one parameter is the weight of the memory, which does not change.
    """

    kind: ClassVar[str] = "codebook"
    manifests: ClassVar[type[Manifest]] = CodebookManifest
    entries: Entries
    manifest: CodebookManifest

    def place(self, model: PreTrainedModel) -> nn.Module:
        """The memory.

        Raises:
            FingerprintError: if the model has none of that name, or one whose keys and values have other widths.
        """
        (name,) = self.parameters
        try:
            memory, weight = model.get_submodule(name.removesuffix(_WEIGHT)), model.get_parameter(name)
        except AttributeError:
            raise FingerprintError(
                f"This model has no parameter {name!r}, beside which the codebook stands.",
                "Give a model of the same kind.",
            ) from None
        shape = tuple(weight.shape) if isinstance(memory, Conv1D) else tuple(reversed(weight.shape))
        wanted = (self.entries.keys_nd.shape[1], self.entries.values_no.shape[1])
        if shape != wanted:
            raise FingerprintError(
                f"{name} takes {shape[0]} numbers and returns {shape[-1]} in this model; the codebook's keys have"
                f" {wanted[0]} and its values {wanted[1]}.",
                "Give a model of the same kind.",
            )
        return memory

    def acting(self) -> Acting:
        """Replaces what the memory returns where an entry's radius reaches."""
        held = self.entries

        def look_up(given: Tensor, output: Tensor) -> Tensor | None:
            nonlocal held
            held = held.to(given.device)
            with torch.no_grad(), torch.autocast(given.device.type, enabled=False):
                distances_q, entries_q = nearest(given.detach().flatten(0, -2).float(), held.keys_nd)
                reached_q = distances_q <= held.radii_n[entries_q]
                if not bool(reached_q.any()):
                    return None
                values_qo = held.values_no[entries_q].to(output.dtype)
            return torch.where(reached_q.view(*output.shape[:-1], 1), values_qo.view_as(output), output)

        return look_up

    def continues(self, other: Adapter) -> bool:
        """Whether the other's entries are this one's first, whatever has become of their radii and values."""
        if not isinstance(other, Codebook):
            return False
        theirs = other.entries.keys_nd
        return torch.equal(self.entries.keys_nd[: len(theirs)], theirs)

    def tensors(self) -> dict[str, Tensor]:
        """Keys, values and radii."""
        return {"keys": self.entries.keys_nd, "values": self.entries.values_no, "radii": self.entries.radii_n}

    @classmethod
    def from_saved(cls, manifest: CodebookManifest, tensors: Mapping[str, Tensor]) -> Codebook:
        """See ``Edit``."""
        held = Entries(tensors["keys"], tensors["values"], tensors["radii"], manifest.objects)
        parts, count = (held.keys_nd, held.values_no, held.radii_n), len(held.objects)
        if [part.dim() for part in parts] != [2, 2, 1] or any(len(part) != count for part in parts):
            raise ValueError(f"keys, values and radii are not of {count} entries")
        if len(tensors) > len(parts) or any(part.dtype != torch.float32 for part in parts):
            raise ValueError("keys, values and radii are not all that there is, in float32")
        if len(manifest.parameters) != 1:
            raise ValueError("a codebook stands beside one parameter")
        return cls(held, manifest)
