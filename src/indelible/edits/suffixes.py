"""The part of a forward pass that changes while values are optimised, and nothing else of it.

Texts are cut at the subject's last token. What stands before it is run once and kept as an attention cache; what the
layers below the value layer return for the rest is kept too. What is left, the suffixes from the value layer up, is run
again and again by values.py.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.wordings import FactRows, Row
from indelible.models.layout import Layout
from indelible.models.trace import by_row, capture, resume_from, select_before_head
from indelible.models.trace import replace as replace_output

# Fewer rows leave a processor idle; more of unlike length are padded more.
_ROWS_PER_PART = 24


@dataclass(frozen=True)
class Suffixes:
    """What is left to compute each step: texts from the subject's last token on, which is their position 0.

    ``r`` rows, ``s`` suffix positions (padded on the right), ``k`` those and the prefix positions (padded on the left),
    ``q`` places where a target token is predicted, ``e`` places where the word after an essence is.
    """

    tokens_rs: Tensor
    mask_rk: Tensor  # over prefix and suffix keys
    positions_rs: Tensor
    facts_r: Tensor
    cache: Any  # of the prefixes; None where no text has any
    below_rsh: Tensor | None  # output of the block below the value layer; None at layer 0
    target_rows_q: Tensor
    target_places_q: Tensor
    targets_q: Tensor
    target_share_q: Tensor  # weight of each target token in its fact's loss
    essence_rows_e: Tensor
    essence_places_e: Tensor


def predict(
    model: PreTrainedModel, layout: Layout, layer: int, suffixes: Suffixes, deltas_ao: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities over the vocabulary where targets and where the words after essences are predicted."""
    rows = torch.cat([suffixes.target_rows_q, suffixes.essence_rows_e])
    places = torch.cat([suffixes.target_places_q, suffixes.essence_places_e])
    with ExitStack() as stack:
        if suffixes.below_rsh is not None:
            as_tuple = layout.blocks_return_tuple
            stack.enter_context(resume_from(model, layout.blocks, layer, suffixes.below_rsh, as_tuple=as_tuple))
        if deltas_ao is not None:
            delta_rh = deltas_ao[suffixes.facts_r]

            def add_delta(output: Tensor) -> Tensor:
                output_rsh = by_row(output, len(delta_rh))
                changed_rsh = torch.cat([(output_rsh[:, 0] + delta_rh).unsqueeze(1), output_rsh[:, 1:]], dim=1)
                return changed_rsh.view_as(output)

            stack.enter_context(replace_output(model, layout.mlp_out[layer], add_delta))
        stack.enter_context(select_before_head(model.get_submodule(layout.head), rows, places))
        log_probs = torch.log_softmax(_run_suffixes(model, suffixes)[0].float(), dim=-1)
    targets = len(suffixes.targets_q)
    return log_probs[:targets], log_probs[targets:]


def _run_suffixes(model: PreTrainedModel, suffixes: Suffixes) -> Tensor:
    options: dict[str, Any] = {"attention_mask": suffixes.mask_rk, "use_cache": suffixes.cache is not None}
    if suffixes.cache is not None:
        options["past_key_values"] = _shared_copy(suffixes.cache)
    logits: Tensor = model(suffixes.tokens_rs, **_accepted(model, options, suffixes.positions_rs)).logits
    return logits


def _accepted(model: PreTrainedModel, options: dict[str, Any], positions: Tensor) -> dict[str, Any]:
    """Add positions where the family takes them; the others (ALiBi) read them off the attention mask."""
    if "position_ids" in inspect.signature(model.forward).parameters:
        return {**options, "position_ids": positions}
    return options


def _shared_copy(cache: Any) -> Any:
    """A cache that can grow without the original noticing; the stored tensors themselves are shared."""
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    return shared


def _cache_rows(cache: Any, rows: Tensor) -> Any:
    chosen = _shared_copy(cache)
    for layer in chosen.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]
    return chosen


def keep_facts(suffixes: Suffixes, keep_a: Tensor) -> Suffixes:
    """The same without the rows of facts that have left; facts and rows are renumbered."""
    fact_number = torch.cumsum(keep_a.long(), 0) - 1
    keep_r = keep_a[suffixes.facts_r]
    row_number = torch.cumsum(keep_r.long(), 0) - 1
    rows = keep_r.nonzero().squeeze(1)
    keep_q = keep_r[suffixes.target_rows_q]
    keep_e = keep_r[suffixes.essence_rows_e]
    return replace(
        suffixes,
        tokens_rs=suffixes.tokens_rs[rows],
        mask_rk=suffixes.mask_rk[rows],
        positions_rs=suffixes.positions_rs[rows],
        facts_r=fact_number[suffixes.facts_r[rows]],
        cache=None if suffixes.cache is None else _cache_rows(suffixes.cache, rows),
        below_rsh=None if suffixes.below_rsh is None else suffixes.below_rsh[rows],
        target_rows_q=row_number[suffixes.target_rows_q[keep_q]],
        target_places_q=suffixes.target_places_q[keep_q],
        targets_q=suffixes.targets_q[keep_q],
        target_share_q=suffixes.target_share_q[keep_q],
        essence_rows_e=row_number[suffixes.essence_rows_e[keep_e]],
        essence_places_e=suffixes.essence_places_e[keep_e],
    )


def prepare(
    model: PreTrainedModel, layout: Layout, layer: int, facts: Sequence[FactRows]
) -> tuple[list[Suffixes], Tensor, Tensor]:
    """Run once what no step changes.

    Returns:
        The suffixes, in parts; the norm of each fact's hidden state that deltas are measured against; and the
        log-probabilities of the word after each essence before any change.
    """
    parts: list[Suffixes] = []
    norms: dict[int, Tensor] = {}
    essences: dict[int, Tensor] = {}
    block = layout.blocks[layer]
    wanted = [block] if layer == 0 else [block, layout.blocks[layer - 1]]
    with torch.no_grad():
        for rows in _parts(facts):
            suffixes = _lay_out(rows, model.device)
            prefix = _left_padded([row.row for row in rows], model.device)
            if prefix is not None:
                tokens, mask, positions = prefix
                run = model(tokens, **_accepted(model, {"attention_mask": mask, "use_cache": True}, positions))
                keys_mask = torch.cat([mask, suffixes.mask_rk], dim=1)
                suffixes = replace(suffixes, cache=run.past_key_values, mask_rk=keys_mask)
            with capture(model, outputs_of=wanted) as seen:
                _, essence_ev = predict(model, layout, layer, suffixes, None)
            below = None if layer == 0 else seen.outputs[layout.blocks[layer - 1]]
            parts.append(replace(suffixes, below_rsh=below))
            essences |= zip(suffixes.facts_r[suffixes.essence_rows_e].tolist(), essence_ev, strict=True)
            states = seen.outputs[block][:, 0].norm(dim=-1)
            norms |= {row.fact: states[number] for number, row in enumerate(rows) if row.bare}
    order = range(len(facts))
    return parts, torch.stack([norms[fact] for fact in order]), torch.stack([essences[fact] for fact in order])


@dataclass(frozen=True)
class _Placed:
    """A text with the fact it belongs to, its weight in that fact's loss, and whether it is the fact's bare prompt."""

    fact: int
    row: Row
    weight: float
    bare: bool

    @property
    def length(self) -> int:
        """Tokens from the subject's last one on; the last target token is predicted, never read."""
        return len(self.row.tokens) - self.row.subject - (1 if self.row.target else 0)


def _parts(facts: Sequence[FactRows]) -> list[list[_Placed]]:
    """All texts, those of like length together, in parts large enough to keep a processor busy."""
    rows = []
    for fact, texts in enumerate(facts):
        weight = 1 / len(texts.rewrites)
        rows += [_Placed(fact, row, weight, number == 0) for number, row in enumerate(texts.rewrites)]
        rows.append(_Placed(fact, texts.essence, 0.0, False))
    rows.sort(key=lambda placed: placed.length)
    parts: list[list[_Placed]] = [[]]
    for placed in rows:
        if len(parts[-1]) >= _ROWS_PER_PART and placed.length > parts[-1][-1].length:
            parts.append([])
        parts[-1].append(placed)
    return parts


def _left_padded(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor, Tensor] | None:
    """Texts before their subjects' last tokens as (tokens, mask, positions); None where all are empty."""
    length = max(row.subject for row in rows)
    if length == 0:
        return None
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for number, row in enumerate(rows):
        if row.subject:
            tokens[number, -row.subject :] = torch.tensor(row.tokens[: row.subject])
            mask[number, -row.subject :] = 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    return tokens.to(device), mask.to(device), positions.to(device)


def _lay_out(rows: Sequence[_Placed], device: torch.device) -> Suffixes:
    """Lay the suffixes of some texts out in one batch; nothing is run."""
    tokens = torch.zeros(len(rows), max(placed.length for placed in rows), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    positions = torch.zeros_like(tokens)
    target_rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    shares: list[float] = []
    essence_rows: list[int] = []
    essence_places: list[int] = []
    for number, placed in enumerate(rows):
        row, length = placed.row, placed.length
        tokens[number, :length] = torch.tensor(row.tokens[row.subject : row.subject + length])
        mask[number, :length] = 1
        positions[number] = torch.arange(row.subject, row.subject + tokens.shape[1])
        if row.target:
            target_rows += [number] * row.target
            places += range(length - row.target, length)
            targets += row.tokens[-row.target :]
            shares += [placed.weight / row.target] * row.target
        else:
            essence_rows.append(number)
            essence_places.append(length - 1)

    def whole(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Suffixes(
        tokens_rs=tokens.to(device),
        mask_rk=mask.to(device),
        positions_rs=positions.to(device),
        facts_r=whole([placed.fact for placed in rows]),
        cache=None,
        below_rsh=None,
        target_rows_q=whole(target_rows),
        target_places_q=whole(places),
        targets_q=whole(targets),
        target_share_q=torch.tensor(shares, device=device),
        essence_rows_e=whole(essence_rows),
        essence_places_e=whole(essence_places),
    )
