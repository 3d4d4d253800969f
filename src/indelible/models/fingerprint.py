"""A model's fingerprint: the hash of its configuration and weights.

Manifests of weight updates, caches of covariances and the steps of a study are all keyed by it, so that nothing made
for one model is ever used on another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# Settings that do not change what a model computes from given weights.
_VOLATILE = frozenset({"transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"})


@dataclass(frozen=True)
class Identity:
    """What a fingerprint is made of, kept apart so that a change of some weights costs the hashes of those alone.

    SHA-256, in hex, of the configuration (what differs from its class's defaults counts) and, by name, of every
    parameter and persistent buffer, tied ones once.
    """

    settings: str
    tensors: Mapping[str, str]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Identity:
        """That of a model as it stands now."""
        settings = json.dumps(_settings(model.config), sort_keys=True).encode()
        tensors = {name: tensor_digest(tensor) for name, tensor in tensors_of(model)}
        return cls(hashlib.sha256(settings).hexdigest(), tensors)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over all of it."""
        digest = hashlib.sha256(self.settings.encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor}".encode())
        return digest.hexdigest()

    def with_changed(self, model: PreTrainedModel, names: Collection[str]) -> Identity:
        """The identity of the same model once the parameters of these names have changed; no other is read."""
        changed = {id(model.get_parameter(name)) for name in names}
        digests = {name: tensor_digest(tensor) for name, tensor in tensors_of(model) if id(tensor) in changed}
        return Identity(self.settings, {**self.tensors, **digests})


def fingerprint(model: PreTrainedModel) -> str:
    """64 hex digits over the configuration and every weight (name, dtype, shape, bytes); see ``Identity``.

    The same weights in another precision have another fingerprint: a difference of weights is exact in one only.
    """
    return Identity.of(model).fingerprint


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256, in hex, of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensors_of(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and persistent buffers, sorted by name; tied ones once, by the first of their names."""
    seen: set[int] = set()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _settings(config: PreTrainedConfig) -> dict[str, Any]:
    """What a configuration says beyond its class's defaults: a release that adds a default changes no fingerprint."""
    try:
        defaults = _plain(type(config)().to_dict())
    except Exception:  # a class from a hub's own code may have no defaults, and raise whatever it likes
        defaults = {}
    settings = {
        key: value
        for key, value in _plain(config.to_dict()).items()
        if key not in _VOLATILE and not key.startswith("_") and not (key in defaults and defaults[key] == value)
    }
    parts = {key: _settings(part) for key, part in vars(config).items() if isinstance(part, PreTrainedConfig)}
    return {**settings, **parts, "configuration": type(config).__name__}


def _plain(settings: dict[str, Any]) -> Any:
    """As JSON gives it back, so that a tuple equals the list that it becomes in a file."""
    return json.loads(json.dumps(settings, default=str))
