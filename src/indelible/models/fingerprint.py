"""A model's fingerprint: the hash of its configuration and weights.

Manifests of weight updates, caches of covariances and the steps of a study are all keyed by it, so that nothing made
for one model is ever used on another.
"""

from __future__ import annotations

import hashlib
import json

import torch
from transformers import PreTrainedModel

# Settings that do not change what a model computes from given weights.
_VOLATILE = frozenset({"transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"})


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256, in hex, over the configuration and every parameter and persistent buffer (name, dtype, shape, bytes).

    The same weights in another precision have another fingerprint: a difference of weights is exact in one only.
    """
    digest = hashlib.sha256(_settings(model).encode())
    seen: set[int] = set()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) in seen:
            continue  # tied weights count once
        seen.add(id(tensor))
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(model: PreTrainedModel) -> str:
    settings = {
        key: value for key, value in model.config.to_dict().items() if key not in _VOLATILE and not key.startswith("_")
    }
    return json.dumps(settings, sort_keys=True, default=str)
