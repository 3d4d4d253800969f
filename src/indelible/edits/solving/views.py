"""The model as later training may leave it: other weights under which the values of a durable edit are right, too.

Training moves an edit's surroundings: what else is at the subject, and what reads it. No one knows beforehand how, so
weights around the edit are moved at random, by a share of their own size, and values are optimised in the model as it
stands and in each of these views in turn (random smoothing). A share of 0.1 is far more than training moves weights
(0.005 in 24 steps on SmolLM2-135M), but what training does goes all in one direction, and noise in none: it turns the
keys of layers 6 to 8 to a cosine of 0.87, that training to 0.95. docs/editors.md has what it is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from indelible.models.layout import Layout


class Views:
    """A model as it stands (view 0), and with some of its weights exchanged.

    Nothing is copied to look: parameters are pointed to other tensors and back.
    """

    def __init__(self, model: nn.Module, others: Sequence[Mapping[str, Tensor]] = ()) -> None:
        self._model, self._others = model, others

    def __len__(self) -> int:
        return 1 + len(self._others)

    @contextmanager
    def seen(self, number: int) -> Iterator[None]:
        """The model has the weights of that view inside the block, and its own again after it."""
        other = self._others[number - 1] if number else {}
        own = {name: self._model.get_parameter(name) for name in other}
        kept = {name: parameter.data for name, parameter in own.items()}
        try:
            for name, weight in other.items():
                own[name].data = weight
            yield
        finally:
            for name, data in kept.items():
                own[name].data = data


def shaken(model: nn.Module, layout: Layout, layers: Sequence[int], share: float, count: int, seed: int) -> Views:
    """The model, and so many views in which normal noise is added to the weights of its blocks.

    Left alone are the memories of ``layers``, which an edit changes, and what is no matrix.

    Args:
        share: of each weight's root mean square; the noise's standard deviation.
    """
    edited = {id(model.get_parameter(layout.memory(layer).weight)) for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: weight.detach()
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and layout.layer_of(name) is not None and id(weight) not in edited
    }
    others = []
    for _ in range(count):
        noise = {name: torch.randn(weight.shape, generator=generator) for name, weight in moved.items()}
        others.append(
            {
                name: weight + share * weight.square().mean().sqrt() * noise.pop(name).to(weight)
                for name, weight in moved.items()
            }
        )
    return Views(model, others)
