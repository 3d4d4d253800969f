"""The layout in one family: whether the map that it names is the memory of each block's MLP."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from family.plain import Off, changed_at, logits_tv, near, seen_at
from indelible.models.layout import find_layout

_TOKENS = [11, 57, 23, 91, 5, 130, 77, 42, 64, 18, 99, 31]

NO_MEMORY = re.compile(
    r"attn|attention|mamba|mixer\.(?!down_proj)|conv|shared|receptance|router|gate\b|per_layer|temporal|expert\b", re.I
)
"""Maps of such names are no output of a whole MLP: said by hand, so that the search is not its own judge."""


def layout(model: Any, tokenizer: Any) -> str:
    found = find_layout(model)
    expected = model.config.get_text_config().num_hidden_layers
    near(found.n_layers, expected, "layers", within=0)
    found.memory(min(found.known_memories, default=0))  # says why, where there is none
    names = []
    with torch.no_grad():
        for layer, memory in found.known_memories.items():
            inside = memory.path.removeprefix(found.blocks[layer]).lstrip(".")
            names.append(inside)
            if NO_MEMORY.search(inside) and not re.search(r"(^|\.)(mlp|feed_forward|ffn)\.\w+$", inside):
                raise Off(f"layer {layer}: {inside} is no output of an MLP")
            exactly = _moves(model, found.blocks[layer], memory.path, memory.key_width)
            if memory.adds_to_residual != exactly:
                raise Off(f"{memory.path} adds to the stream as it is: {exactly}, and said to be {not exactly}")
    some = "" if len(names) == expected else f" (layers {', '.join(map(str, found.known_memories))} of {expected})"
    return ", ".join(dict.fromkeys(names)) + some


def _moves(model: Any, block: str, memory: str, width: int) -> bool:
    """Move what the memory returns, and see whether the stream behind the block moves by just that."""
    with seen_at(model, block) as stream, seen_at(model, memory) as inside:
        logits_tv(model, _TOKENS)
        before, keys, values = stream["out"], inside["in"], inside["out"]
        module = model.get_submodule(memory)
        weight = module.weight if isinstance(module, Conv1D) else module.weight.T
        bias = 0 if module.bias is None else module.bias
        near(float((keys @ weight + bias - values).abs().max()), 0, f"{memory} is not its weight's product")
        near(keys.shape[-1], width, f"key width of {memory}", within=0)
        if keys.reshape(-1, keys.shape[-1]).shape[0] != len(_TOKENS):
            raise Off(f"{memory} sees {keys.shape[:-1]} of {len(_TOKENS)} tokens")
        nudge = torch.linspace(-1, 1, values.shape[-1]) * values.std()
        # Only the last token is moved, so that attention behind it cannot answer.
        moved = torch.zeros(len(_TOKENS), 1)
        moved[-1] = 1
        with changed_at(model, memory, lambda output: output + (moved * nudge).reshape(output.shape)):
            logits_tv(model, _TOKENS)
        change = stream["out"] - before
    if change.shape[-1] != nudge.shape[-1] or change.dim() > 3:
        raise Off(f"what {block} returns has the shape {tuple(change.shape)}")
    change = change.reshape(-1, change.shape[-1])
    if float(change[:-1].abs().max()) > 1e-4:
        raise Off(f"{memory} reaches earlier tokens")
    if float(change[-1].norm()) == 0:
        raise Off(f"{memory} does not reach the stream")
    return bool(torch.allclose(change[-1], nudge, atol=1e-3 * float(nudge.abs().max())))
