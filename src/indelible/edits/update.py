"""An edit of weights: what changes in which parameters, as thin factors or in full.

Adding a difference and taking it away again does not give back the weights: floating point rounds. An update that is
*sealed* on its base model therefore carries the few entries that rounding would change, and the hashes of the changed
weights before and after. It can be reverted to the original bytes, found again in other weights, and joined with
updates that were made after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.edit import EDITS, Edit
from indelible.errors import EditError, FingerprintError
from indelible.models.fingerprint import fingerprint


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
        """That of all parameters, where they agree, or "changed"."""
        found = set(self.states.values())
        return found.pop() if len(found) == 1 else "changed"


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
        if "seal" in manifest and set(fixes) != set(deltas):
            raise ValueError("the seal is incomplete")
        return update

    def sealed(self, model: PreTrainedModel, *, known_fingerprint: str | None = None) -> WeightUpdate:
        """The same update with what it takes to revert it exactly and to find it again.

        Args:
            model: the one that the update was made for; left as it was.
            known_fingerprint: its fingerprint, if the caller has just computed it.

        Raises:
            FingerprintError: if the update was made for another model.
        """
        self.check(model, known_fingerprint=known_fingerprint)
        before: dict[str, str] = {}
        after: dict[str, str] = {}
        products: dict[str, float] = {}
        fixes: dict[str, Fix] = {}
        with self.installed(model), torch.no_grad():
            result = fingerprint(model)
            changed = {name: model.get_parameter(name).detach().clone() for name in self.deltas}
        with torch.no_grad():
            for name, delta in self.deltas.items():
                weight = model.get_parameter(name).detach()
                before[name], after[name] = _digest(weight), _digest(changed[name])
                difference = delta.difference()
                products[name] = _product(weight, difference)
                back = changed[name].sub_(difference.to(device=weight.device, dtype=weight.dtype))
                places = (_bits(back) != _bits(weight)).flatten().nonzero().squeeze(1)
                fixes[name] = Fix(places.to(torch.int32).cpu(), weight.flatten()[places].cpu())
        seal = {"result": result, "before": before, "after": after, "products": products}
        return replace(self, manifest={**self.manifest, "seal": seal}, fixes=fixes)

    def revert(self, model: PreTrainedModel, *, approximately: bool = False) -> None:
        """Take the update out of a model that it is in, and give back the original bytes.

        Args:
            model: with the update applied and no other change of the weights that it changed.
            approximately: subtract the difference whatever the weights are now, and whatever rounding does.

        Raises:
            EditError: if the update is not sealed.
            FingerprintError: if these weights are not what the update left; nothing is changed then.
        """
        if approximately:
            with torch.no_grad():
                for name, delta in self.deltas.items():
                    weight = _weight(model, name)
                    weight.sub_(delta.difference().to(device=weight.device, dtype=weight.dtype))
            return
        seal = self._seal()
        for name in self.deltas:
            if _digest(_weight(model, name)) != seal["after"][name]:
                raise FingerprintError(
                    f"{name} is not as this update left it: the model was trained since, or never had the update.",
                    "Revert the edited model itself, or subtract the difference all the same (approximately).",
                )
        old: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, delta in self.deltas.items():
                weight = model.get_parameter(name)
                difference = delta.difference().to(device=weight.device, dtype=weight.dtype)
                old[name] = weight.detach() - difference
                fix = self.fixes[name]
                old[name].view(-1)[fix.places.long().to(weight.device)] = fix.values.to(weight.device)
                if _digest(old[name]) != seal["before"][name]:
                    raise EditError(f"Reverting {name} does not give back its bytes.", "Make the edit again.")
            for name, before in old.items():
                model.get_parameter(name).copy_(before)

    def presence(self, model: PreTrainedModel) -> Remains:
        """How much of the update is in these weights; the base model is not needed.

        The share is the projection of what changed since the base on the difference, <W - W_base, D> / <D, D>, of which
        the seal holds <W_base, D>. Training that has nothing to do with the update hardly moves it.

        Raises:
            EditError: if the update is not sealed.
            FingerprintError: if the model lacks one of the parameters.
        """
        seal = self._seal()
        states: dict[str, str] = {}
        shares: dict[str, float] = {}
        sizes: dict[str, float] = {}
        for name, delta in self.deltas.items():
            weight = _weight(model, name).detach()
            digest, difference = _digest(weight), delta.difference()
            sizes[name] = _product(difference, difference)
            states[name] = {seal["after"][name]: "exact", seal["before"][name]: "absent"}.get(digest, "changed")
            moved = _product(weight, difference) - seal["products"][name]
            shares[name] = {"exact": 1.0, "absent": 0.0}.get(states[name], moved / sizes[name] if sizes[name] else 0.0)
        whole = sum(sizes.values())
        share = sum(shares[name] * sizes[name] for name in shares) / whole if whole else 0.0
        return Remains(states, shares, share)

    def __add__(self, other: WeightUpdate) -> WeightUpdate:
        """Both updates in one: made side by side for one model, or the other for what this one left.

        The sum is not sealed; ``sealed`` on the base model does that.

        Raises:
            FingerprintError: if neither is so.
            EditError: if updates made side by side edit the same fact.
        """
        if not isinstance(other, WeightUpdate):
            raise EditError(f"An edit of kind {getattr(other, 'kind', other)!r} cannot be added.", "Apply both.")
        base, then = self.manifest["fingerprint"], other.manifest["fingerprint"]
        result = self.manifest.get("seal", {}).get("result")
        facts = {fact["id"]: fact for fact in self.manifest.get("facts", ())}
        later = {fact["id"]: fact for fact in other.manifest.get("facts", ())}
        if base == then:
            topics = {(fact["subject"], fact["relation"]) for fact in facts.values()}
            for fact in later.values():
                if fact["id"] in facts or (fact["subject"], fact["relation"]) in topics:
                    raise EditError(
                        f"Both updates edit {fact['subject']!r} ({fact['relation']}).",
                        "Make the second edit on the model that the first one left, or leave that fact out.",
                    )
        elif then != result:
            raise FingerprintError(
                f"The second update was made for {then[:12]}, which is neither the first one's model ({base[:12]}) nor"
                f" what that leaves ({(result or 'not sealed')[:12]}).",
                "Give updates of one model, or a chain in its order.",
            )
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = combined(deltas[name], delta) if name in deltas else delta
        keys = dict(self.keys)
        for name, added in other.keys.items():
            keys[name] = torch.cat([keys[name], added], dim=1) if name in keys else added
        own = {key: value for key, value in self.manifest.items() if key != "seal"}
        editors = dict.fromkeys([*own["editor"].split(" + "), *other.manifest["editor"].split(" + ")])
        manifest = {
            **own,
            "editor": " + ".join(editors),
            "options": {"parts": [own["options"], other.manifest["options"]]},
            "parameters": list(deltas),
            "facts": list((facts | later).values()),
            "bystanders": list(dict.fromkeys([*own["bystanders"], *other.manifest["bystanders"]])),
        }
        return WeightUpdate(deltas, manifest, keys)

    def _seal(self) -> Mapping[str, Any]:
        seal: Mapping[str, Any] | None = self.manifest.get("seal")
        if seal is None:
            raise EditError("This update is not sealed.", "Call sealed(model) with the model that it was made for.")
        return seal


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


def _weight(model: PreTrainedModel, name: str) -> Tensor:
    try:
        return model.get_parameter(name)
    except AttributeError:
        raise FingerprintError(f"This model has no parameter {name!r}.", "Give a model of the same kind.") from None


def _bits(tensor: Tensor) -> Tensor:
    """Entries as integers, so that comparing them compares bits (0.0 and -0.0 differ)."""
    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()


def _product(first: Tensor, second: Tensor) -> float:
    """The sum of the products of two tensors' entries, in float64."""
    return float((first.detach().cpu().double() * second.cpu().double()).sum())
