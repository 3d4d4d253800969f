"""What moved under an edit while the model was tuned: its keys, what its memory returns, and how that is read out.

An edited projection answers a subject's key k with W·k, and the last state of the prompt is read out by the head.
Tuning can break this chain anywhere, and each link is compared in the edited and the tuned model, fact by fact.

Shape suffixes: n facts, d width of a key, o width of an output, h hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.facts.fact import Fact
from indelible.models.batches import of_like_length, padded
from indelible.models.layout import Layout
from indelible.models.tokens import encode_object, encode_prompt, subject_tokens
from indelible.models.trace import by_row, capture, evaluating
from indelible.why.mixtures import changed_weights, exchanging

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("fact_id", "quantity", "layer", "parameter", "cosine", "norm_change")

_TOKENS_PER_PASS = 4096


def measure_drift(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    facts: Sequence[Fact],
    parameters: Sequence[str],
    tuned: Mapping[str, Tensor],
    *,
    keys_at: Literal["subject", "prompt"] = "subject",
    context: str = "",
) -> pd.DataFrame:
    """Compare what edited facts meet, on their own prompts, in the edited and in the tuned model.

    Args:
        model: with the edited weights; left as it was, bit for bit.
        parameters: that the edit changes or acts beside. Those that are no weight of a linear map inside the blocks
            have no key and are left out.
        tuned: weights after tuning, as for ``changed_weights``.
        keys_at: whose last token asks the memory: the subject's, or the prompt's (codebooks are asked there).
        context: put before each prompt (``Edit.context``).

    Returns:
        One row per fact × quantity (× projection) with COLUMNS: ``cosine`` between the two models' vectors, and
        ``norm_change``, the tuned vector's norm over the edited one's, minus 1. The quantities:

        - *key*: what enters an edited projection.
        - *output*: W·k, both as tuned. *output_by_weight*: the tuned W on the edited k, and *output_by_key*: the edited
          W on the tuned k; these say which of the two turned it.
        - *state*: what the head reads at the prompt's last token (behind the final norm).
        - *head_row*: the head's row of the new object's first token.

        ``layer`` and ``parameter`` are missing for the last two.

    Raises:
        ModelError: as ``changed_weights``.
        FactsError: if a prompt or an object has no tokens.
    """
    changed = changed_weights(model, tuned)
    projections = _projections(model, layout, parameters)
    asked = [_asked(tokenizer, fact, keys_at == "subject", context) for fact in facts]
    with exchanging(model, changed) as exchange:
        before = _read(model, layout, projections, asked)
        exchange(changed.keys())
        after = _read(model, layout, projections, asked)
        by_weight = {name: _product(model, name, before.keys[name]) for name in projections}
        exchange(())
        by_key = {name: _product(model, name, after.keys[name]) for name in projections}
    lines: list[tuple[str, str, int | None, str | None, float, float]] = []
    ids = [fact.id for fact in facts]

    def compare(quantity: str, edited_nx: Tensor, tuned_nx: Tensor, parameter: str | None = None) -> None:
        layer = None if parameter is None else layout.layer_of(parameter)
        cosines, changes = turned(edited_nx, tuned_nx)
        for fact, cosine, change in zip(ids, cosines.tolist(), changes.tolist(), strict=True):
            lines.append((fact, quantity, layer, parameter, cosine, change))

    for name in projections:
        compare("key", before.keys[name], after.keys[name], name)
        compare("output", before.outputs[name], after.outputs[name], name)
        compare("output_by_weight", before.outputs[name], by_weight[name], name)
        compare("output_by_key", before.outputs[name], by_key[name], name)
    compare("state", before.states_nh, after.states_nh)
    compare("head_row", before.rows_nh, after.rows_nh)

    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"layer": "Int64"})


def turned(edited_nx: Tensor, tuned_nx: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and relative change of the norm, row by row, in float64: twice ``(n,)``.

    The cosine is NaN where a vector is zero, the change where the edited one is.
    """
    edited_nx, tuned_nx = edited_nx.double(), tuned_nx.double()
    old_n, new_n = edited_nx.norm(dim=1), tuned_nx.norm(dim=1)
    cosine_n = (edited_nx * tuned_nx).sum(dim=1) / (old_n * new_n)
    return cosine_n.clamp(-1, 1), new_n / old_n.where(old_n > 0, torch.nan) - 1


@dataclass(frozen=True)
class _Asked:
    """A prompt in tokens, where its key is read, and the first token of the object that it should bring."""

    tokens: tuple[int, ...]
    key_at: int
    answer: int


@dataclass(frozen=True)
class _Reading:
    """What one model shows of all facts, on the processor: k and W·k (without bias) by projection, what the head reads
    at the prompts' last tokens, and its rows of the objects' first tokens."""

    keys: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    states_nh: Tensor
    rows_nh: Tensor


def _projections(model: nn.Module, layout: Layout, parameters: Sequence[str]) -> dict[str, str]:
    """By parameter name, the module whose linear map it is."""
    found = {}
    for name in parameters:
        path, _, part = name.rpartition(".")
        linear = isinstance(model.get_submodule(path), nn.Linear | Conv1D)
        if part == "weight" and linear and layout.layer_of(name) is not None:
            found[name] = path
    return found


def _asked(tokenizer: PreTrainedTokenizerBase, fact: Fact, at_subject: bool, context: str) -> _Asked:
    text = context + fact.text()
    tokens = encode_prompt(tokenizer, text)
    key_at = subject_tokens(tokenizer, context + fact.prompt, fact.subject)[1] if at_subject else len(tokens) - 1
    return _Asked(tuple(tokens), key_at, encode_object(tokenizer, text, fact.new_object or "")[0])


def _read(model: PreTrainedModel, layout: Layout, projections: Mapping[str, str], asked: Sequence[_Asked]) -> _Reading:
    """One pass over all prompts; those of like length share a batch, padded behind, where nothing looks."""
    keys: dict[str, list[Tensor]] = {name: [] for name in projections}
    states: list[Tensor] = []
    batches = of_like_length([len(one.tokens) for one in asked], _TOKENS_PER_PASS)
    with evaluating(model), torch.no_grad():
        for batch in batches:
            tokens_bt, mask_bt = padded([asked[index].tokens for index in batch])
            looked_at = [*projections.values(), layout.head]
            with capture(model, inputs_of=looked_at, stop_before=layout.head) as seen:
                model(tokens_bt.to(model.device), attention_mask=mask_bt.to(model.device), use_cache=False)
            rows, ends = torch.arange(len(batch)), mask_bt.sum(dim=1) - 1
            states.append(by_row(seen.inputs[layout.head], len(batch))[rows, ends].cpu())
            keys_at = [asked[index].key_at for index in batch]
            for name, path in projections.items():
                keys[name].append(by_row(seen.inputs[path], len(batch))[rows, keys_at].cpu())
    in_order = torch.tensor([index for batch in batches for index in batch]).argsort()
    stacked = {name: torch.cat(found)[in_order] for name, found in keys.items()}
    head = model.get_parameter(f"{layout.head}.weight").detach()
    return _Reading(
        stacked,
        {name: _product(model, name, keys_nd) for name, keys_nd in stacked.items()},
        torch.cat(states)[in_order],
        head[[one.answer for one in asked]].cpu(),
    )


def _product(model: nn.Module, parameter: str, keys_nd: Tensor) -> Tensor:
    """``(n, o)``: what a linear map's weight, as it is now, makes of keys."""
    weight = model.get_parameter(parameter).detach()
    module = model.get_submodule(parameter.removesuffix(".weight"))
    weight_do = weight if isinstance(module, Conv1D) else weight.T
    return (keys_nd.to(weight.device) @ weight_do).cpu()
