"""A model's fingerprint: the hash of its configuration and weights.

Manifests of weight updates, caches of covariances and the steps of a study are all keyed by it, so that nothing made
for one model is ever used on another.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# Settings that do not change what a model computes from given weights.
_VOLATILE = frozenset({"transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"})


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256, in hex, over the configuration and every parameter and persistent buffer (name, dtype, shape, bytes).

    Of the configuration, what differs from its class's defaults counts.

    The same weights in another precision have another fingerprint: a difference of weights is exact in one only.
    """
    digest = hashlib.sha256(json.dumps(_settings(model.config), sort_keys=True).encode())
    seen: set[int] = set()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) in seen:
            continue  # tied weights count once
        seen.add(id(tensor))
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that a tuple equals the list that it becomes in a file."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain
