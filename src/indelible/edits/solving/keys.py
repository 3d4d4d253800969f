"""Keys: what a memory is asked with when the model reads a subject, at the subject's last token.

The key of a wording is averaged over contexts (ROME, Meng et al. 2022, equation 3); the code of MEMIT and its
successors averages over kinds of context, so that the bare wording counts half. Nothing after that token, nor above
the deepest layer asked for, is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.solving.texts import FactRows, Row
from indelible.models.batches import of_like_length, padded
from indelible.models.layout import Layout
from indelible.models.trace import by_row, capture, evaluating

Compared = Literal["block", "mlp"]
"""Whose output shows how much of a wanted change has arrived: the value layer's block, or its MLP alone."""

_TOKENS_PER_PASS = 4096
_SINK = 0.8  # cosine of keys that do not tell their tokens apart


@dataclass(frozen=True)
class Readings:
    """What the model shows at the subjects' last tokens, one column per wording, facts in order.

    Attributes:
        keys_dn: key of each wording, averaged over contexts.
        bare_dn: key of each bare wording.
        states_on: what the value layer's block, or its MLP, returned for the bare wording.
        facts_n: index of the fact that each column belongs to.
    """

    keys_dn: Tensor
    bare_dn: Tensor
    states_on: Tensor
    facts_n: Tensor


def read_subjects(
    model: PreTrainedModel,
    layout: Layout,
    key_layer: int,
    value_layer: int,
    facts: Sequence[FactRows],
    *,
    compared: Compared = "block",
    bare_share: float | None = None,
) -> Readings:
    """Keys at ``key_layer``, and what is compared at ``value_layer``, which is not below it, in one pass over all.

    ``bare_share``: weight of the bare wording's key, those behind contexts sharing the rest; None weighs all alike.
    """
    states_of = layout.blocks[value_layer] if compared == "block" else layout.memory(value_layer).path
    groups = [(fact, wording) for fact, rows in enumerate(facts) for wording in rows.wordings]
    texts = [row for _, wording in groups for row in wording]
    by_layer, states = _at_subjects(model, layout, [key_layer], states_of, texts)
    sizes = [len(wording) for _, wording in groups]
    keys = by_layer[key_layer].split(sizes)
    return Readings(
        torch.stack([_averaged(part, bare_share) for part in keys], dim=1),
        torch.stack([part[0] for part in keys], dim=1),
        torch.stack([part[0] for part in states.split(sizes)], dim=1),
        torch.tensor([fact for fact, _ in groups], device=states.device),
    )


def _averaged(keys_td: Tensor, bare_share: float | None) -> Tensor:
    if bare_share is None or len(keys_td) == 1:
        return keys_td.mean(dim=0)
    return bare_share * keys_td[0] + (1 - bare_share) * keys_td[1:].mean(dim=0)


def subject_keys(
    model: PreTrainedModel, layout: Layout, layers: Sequence[int], texts: Sequence[Row]
) -> Mapping[int, Tensor]:
    """Keys of single texts at several layers, in one pass: by layer, ``(texts, d)``."""
    keys, _ = _at_subjects(model, layout, layers, layout.blocks[max(layers)], texts)
    return keys


def begins_with_a_sink(model: PreTrainedModel, layout: Layout, layers: Sequence[int]) -> bool:
    """Whether a text's first token has nearly the same key in these layers whatever it is: the attention sink's.

    On SmolLM2-135M the keys of different words have cosines of 0.89 to 0.9999 there, layer by layer, and 0.02 to 0.6
    behind a few other words.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    words = [Row((token,), 0, 0) for token in range(vocabulary // 17, vocabulary, max(1, vocabulary // 17))]
    for keys_nd in subject_keys(model, layout, layers, words).values():
        unit_nd = torch.nn.functional.normalize(keys_nd.float(), dim=1)
        apart = ~torch.eye(len(words), dtype=torch.bool, device=unit_nd.device)
        if float((unit_nd @ unit_nd.T)[apart].median()) > _SINK:
            return True
    return False


def _at_subjects(
    model: PreTrainedModel, layout: Layout, key_layers: Sequence[int], states_of: str, texts: Sequence[Row]
) -> tuple[dict[int, Tensor], Tensor]:
    memories = {layer: layout.memory(layer).path for layer in key_layers}
    known = [text.tokens[: text.subject + 1] for text in texts]  # nothing that follows changes what is there
    keys: dict[int, list[Tensor]] = {layer: [] for layer in key_layers}
    states: list[Tensor] = []
    batches = of_like_length([len(tokens) for tokens in known], _TOKENS_PER_PASS)
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            tokens, mask = padded([known[index] for index in batch])
            with capture(model, inputs_of=[*memories.values()], outputs_of=[states_of], stop_after=states_of) as seen:
                model(tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
            # Copies: a view of one token would keep its whole pass in memory.
            at_subjects = range(len(batch)), [texts[index].subject for index in batch]
            for layer, memory in memories.items():
                keys[layer].append(by_row(seen.inputs[memory], len(batch))[at_subjects])
            states.append(by_row(seen.outputs[states_of], len(batch))[at_subjects])
    in_order = torch.tensor([index for batch in batches for index in batch]).argsort()
    return {layer: torch.cat(found)[in_order] for layer, found in keys.items()}, torch.cat(states)[in_order]
