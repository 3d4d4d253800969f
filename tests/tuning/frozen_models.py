"""Tiny models whose leading layers are frozen, and what to look at in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from indelible.models.layout import find_layout
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.frozen_prefix import REUSE_BYTES, FrozenPrefix, frozen_prefix
from tiny_families import build_family, enliven

FROZEN_LAYERS = 2


def made(family: str, tokenizer: PreTrainedTokenizerFast, dropout: float = 0.0) -> PreTrainedModel:
    model = enliven(build_family(family, len(tokenizer)))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def up_to(model: PreTrainedModel, layers: int = FROZEN_LAYERS) -> frozenset[str]:
    layout = find_layout(model)
    return frozen_parameters("up-to-edited", model, layout, [layout.mlp_out_weight[layers - 1]])


def weights(model: PreTrainedModel) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in model.parameters()])


def rows_through(model: PreTrainedModel, layer: int) -> list[int]:
    """Rows of each pass that goes through a layer's MLP from now on."""
    module, passes = model.get_submodule(find_layout(model).mlp_out[layer]), list[int]()
    forward = module.forward

    def counted(states: Tensor) -> Any:
        passes.append(len(states))
        return forward(states)

    module.forward = counted
    return passes


@contextmanager
def reusing(
    model: PreTrainedModel, budget: int = REUSE_BYTES, repeated: bool = True
) -> Iterator[tuple[PreTrainedModel, FrozenPrefix]]:
    frozen = up_to(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    with frozen_prefix(model, frozen, budget) as prefix:
        prefix.begin(repeated=repeated)
        assert prefix.layers == FROZEN_LAYERS
        yield model, prefix


def passed(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], *, left: bool = False, width: int | None = None
) -> list[Tensor]:
    """Logits at the tokens of each row, in one padded batch."""
    longest = width or max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), 3), torch.zeros(len(rows), longest, dtype=torch.long)
    spans = [slice(longest - len(row), longest) if left else slice(0, len(row)) for row in rows]
    for place, (row, span) in enumerate(zip(rows, spans, strict=True)):
        ids[place, span] = torch.tensor(row)
        mask[place, span] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return [logits[place, span] for place, span in enumerate(spans)]
