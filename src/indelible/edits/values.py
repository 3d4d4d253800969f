"""Values: what a memory should return so that the model says the new object.

For every fact a vector delta, added to what the value layer's MLP returns at the subject's last token, is optimised
until the model predicts the new object (ROME, Meng et al. 2022, equation 4). This is nearly all of an edit's cost, and
in a causal model most of the textbook loop computes the same things again and again. Here

- everything before the subject's last token is run once, and its attention keys and values are kept;
- everything below the value layer is run once, and its output is kept;
- each step runs the rest of the tokens through the rest of the layers, for all facts in one batch;
- logits are computed only where a target token, or the word after "<subject> is a", is predicted;
- no gradient of a parameter is computed, and a fact that has converged leaves the batch.

None of it changes the numbers: tests hold the trajectory against a plain loop.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from indelible.edits.wordings import FactRows, Row
from indelible.models.layout import Layout
from indelible.models.trace import capture, evaluating, resume_from, select_before_head
from indelible.models.trace import replace as replace_output

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ValueOptions:
    """How values are optimised.

    Attributes:
        steps: evaluations of the loss at most; there is one update fewer.
        learning_rate: of Adam.
        weight_decay: weight of |delta| / |reference|^2, as in ROME's code.
        kl_weight: weight of KL(before || after) of the word after "<subject> is a".
        clamp: longest delta, as a multiple of the reference's norm.
        converged: a fact whose loss is below this leaves.
        tokens_per_batch: facts are taken together up to this many suffix tokens.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    kl_weight: float
    clamp: float
    converged: float = 0.05
    tokens_per_batch: int = 8192


@dataclass(frozen=True)
class Values:
    """Optimised values, facts in order.

    Attributes:
        deltas_fo: ``(facts, hidden)`` change of what the value layer's MLP returns.
        losses_f: last loss of each fact.
        steps_f: evaluations of the loss that each fact took.
    """

    deltas_fo: Tensor
    losses_f: Tensor
    steps_f: Tensor


def optimise_values(
    model: PreTrainedModel,
    layout: Layout,
    layer: int,
    facts: Sequence[FactRows],
    options: ValueOptions,
    progress: Progress | None = None,
) -> Values:
    """Optimise one delta for each fact.

    Args:
        model: float32; left as it was.
        layout: the model's.
        layer: the value layer.
        facts: the facts' texts.
        options: how.
        progress: called with (facts converged or given up, facts, note).
    """
    done: list[Values] = []
    finished = 0
    for batch in _fact_batches(facts, options.tokens_per_batch):

        def report(left: int, note: str, batch: Sequence[FactRows] = batch, before: int = finished) -> None:
            if progress is not None:
                progress(before + len(batch) - left, len(facts), note)

        with evaluating(model):
            done.append(_optimise_batch(model, layout, layer, batch, options, report))
        finished += len(batch)
    return Values(
        torch.cat([part.deltas_fo for part in done]),
        torch.cat([part.losses_f for part in done]),
        torch.cat([part.steps_f for part in done]),
    )


def _fact_batches(facts: Sequence[FactRows], tokens: int) -> list[list[FactRows]]:
    batches: list[list[FactRows]] = [[]]
    used = 0
    for fact in facts:
        cost = sum(len(row.tokens) - row.subject for row in (*fact.rewrites, fact.essence))
        if batches[-1] and used + cost > tokens:
            batches.append([])
            used = 0
        batches[-1].append(fact)
        used += cost
    return batches


@dataclass(frozen=True)
class _Suffixes:
    """What is left to compute each step: the texts from the subject's last token on, which is their position 0.

    ``r`` rows, ``s`` suffix positions (padded on the right), ``p`` prefix positions (padded on the left), ``q`` places
    where a word is predicted: first the targets', then one for each essence.
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
    essence_rows_f: Tensor
    essence_places_f: Tensor


def _optimise_batch(
    model: PreTrainedModel,
    layout: Layout,
    layer: int,
    facts: Sequence[FactRows],
    options: ValueOptions,
    report: Callable[[int, str], None],
) -> Values:
    suffixes, reference_f, essence_before_fv = _prepare(model, layout, layer, facts)
    device = model.device
    deltas = [nn.Parameter(torch.zeros(layout.hidden_size, device=device)) for _ in facts]
    optimiser = torch.optim.Adam(deltas, lr=options.learning_rate)
    losses_f = torch.full((len(facts),), torch.inf, device=device)
    steps_f = torch.zeros(len(facts), dtype=torch.long)
    active = list(range(len(facts)))
    limit_f = options.clamp * reference_f
    for step in range(options.steps):
        optimiser.zero_grad()
        chosen = torch.tensor(active, device=device)
        deltas_ao = torch.stack([deltas[fact] for fact in active])
        nll_a, essence_av = _losses(model, layout, layer, suffixes, deltas_ao, len(active))
        before_av = essence_before_fv[chosen]
        kl_a = (before_av.exp() * (before_av - essence_av)).sum(-1)
        decay_a = deltas_ao.norm(dim=-1) / reference_f[chosen] ** 2
        loss_a = nll_a + options.kl_weight * kl_a + options.weight_decay * decay_a
        losses_f[chosen] = loss_a.detach()
        steps_f[active] = step + 1
        staying = [fact for fact, loss in zip(active, loss_a.tolist(), strict=True) if loss >= options.converged]
        report(len(staying), f"values, step {step + 1} of {options.steps}, loss {loss_a.mean().item():.2f}")
        if step == options.steps - 1 or not staying:
            break
        # Facts that have converged get no gradient, so Adam leaves them and their moments alone.
        stays_a = torch.tensor([fact in set(staying) for fact in active], device=device)
        loss_a[stays_a].sum().backward()
        for fact in set(active) - set(staying):
            deltas[fact].grad = None
        optimiser.step()
        with torch.no_grad():
            for fact in staying:
                norm = deltas[fact].norm()
                if norm > limit_f[fact]:
                    deltas[fact].mul_(limit_f[fact] / norm)
        if len(staying) < len(active):
            suffixes = _keep_facts(suffixes, stays_a)
            active = staying
    return Values(torch.stack([delta.detach() for delta in deltas]), losses_f, steps_f)


def _losses(
    model: PreTrainedModel, layout: Layout, layer: int, suffixes: _Suffixes, deltas_ao: Tensor, facts: int
) -> tuple[Tensor, Tensor]:
    """Mean negative log-likelihood of each fact's targets, and log-probabilities of the word after its essence."""
    delta_rh = deltas_ao[suffixes.facts_r]

    def add_delta(output_rsh: Tensor) -> Tensor:
        return torch.cat([(output_rsh[:, 0] + delta_rh).unsqueeze(1), output_rsh[:, 1:]], dim=1)

    rows = torch.cat([suffixes.target_rows_q, suffixes.essence_rows_f])
    places = torch.cat([suffixes.target_places_q, suffixes.essence_places_f])
    with ExitStack() as stack:
        if suffixes.below_rsh is not None:
            as_tuple = layout.blocks_return_tuple
            stack.enter_context(resume_from(model, layout.blocks, layer, suffixes.below_rsh, as_tuple=as_tuple))
        stack.enter_context(replace_output(model, layout.mlp_out[layer], add_delta))
        stack.enter_context(select_before_head(model.get_submodule(layout.head), rows, places))
        logits_qv = _run_suffixes(model, suffixes)[0]
    log_probs_qv = torch.log_softmax(logits_qv.float(), dim=-1)
    n_targets = len(suffixes.targets_q)
    nll_q = -log_probs_qv[:n_targets].gather(1, suffixes.targets_q.unsqueeze(1)).squeeze(1)
    facts_q = suffixes.facts_r[suffixes.target_rows_q]
    nll_f = torch.zeros(facts, device=nll_q.device).index_add(0, facts_q, nll_q * suffixes.target_share_q)
    return nll_f, log_probs_qv[n_targets:]


def _run_suffixes(model: PreTrainedModel, suffixes: _Suffixes) -> Tensor:
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


def _keep_facts(suffixes: _Suffixes, keep_a: Tensor) -> _Suffixes:
    """The same without the rows of facts that have left; facts and rows are renumbered."""
    fact_number = torch.cumsum(keep_a.long(), 0) - 1
    keep_r = keep_a[suffixes.facts_r]
    row_number = torch.cumsum(keep_r.long(), 0) - 1
    rows = keep_r.nonzero().squeeze(1)
    keep_q = keep_r[suffixes.target_rows_q]
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
        essence_rows_f=row_number[suffixes.essence_rows_f[keep_a]],
        essence_places_f=suffixes.essence_places_f[keep_a],
    )


def _prepare(
    model: PreTrainedModel, layout: Layout, layer: int, facts: Sequence[FactRows]
) -> tuple[_Suffixes, Tensor, Tensor]:
    """Run once what no step changes.

    Returns:
        The suffixes; the norm of each fact's hidden state that deltas are measured against; and the log-probabilities
        of the word after each essence before any change.
    """
    suffixes = _lay_out(facts, model.device)
    with torch.no_grad():
        prefix = _left_padded([row for fact in facts for row in (*fact.rewrites, fact.essence)], model.device)
        if prefix is not None:
            tokens, mask, positions = prefix
            run = model(tokens, **_accepted(model, {"attention_mask": mask, "use_cache": True}, positions))
            suffixes = replace(suffixes, cache=run.past_key_values, mask_rk=torch.cat([mask, suffixes.mask_rk], dim=1))
        block = layout.blocks[layer]
        wanted = [block] if layer == 0 else [block, layout.blocks[layer - 1]]
        head = model.get_submodule(layout.head)
        chosen = select_before_head(head, suffixes.essence_rows_f, suffixes.essence_places_f)
        with capture(model, outputs_of=wanted) as seen, chosen:
            essence_fv = torch.log_softmax(_run_suffixes(model, suffixes)[0].float(), dim=-1)
        below = None if layer == 0 else seen.outputs[layout.blocks[layer - 1]]
        bare_f = torch.tensor(_first_rows(facts), device=model.device)
        return replace(suffixes, below_rsh=below), seen.outputs[block][bare_f, 0].norm(dim=-1), essence_fv


def _first_rows(facts: Sequence[FactRows]) -> list[int]:
    """Row of each fact's bare prompt."""
    first, rows = [], 0
    for fact in facts:
        first.append(rows)
        rows += len(fact.rewrites) + 1
    return first


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


def _lay_out(facts: Sequence[FactRows], device: torch.device) -> _Suffixes:
    """Lay the suffixes of all facts out in one batch; nothing is run."""
    rows = [(number, row) for number, fact in enumerate(facts) for row in (*fact.rewrites, fact.essence)]
    # The last target token is predicted, never read.
    lengths = [len(row.tokens) - row.subject - (1 if row.target else 0) for _, row in rows]
    tokens = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    positions = torch.zeros_like(tokens)
    target_rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    shares: list[float] = []
    essence_rows: list[int] = []
    essence_places: list[int] = []
    for number, ((fact, row), length) in enumerate(zip(rows, lengths, strict=True)):
        tokens[number, :length] = torch.tensor(row.tokens[row.subject : row.subject + length])
        mask[number, :length] = 1
        positions[number] = torch.arange(row.subject, row.subject + tokens.shape[1])
        if row.target:
            target_rows += [number] * row.target
            places += range(length - row.target, length)
            targets += row.tokens[-row.target :]
            shares += [1 / (row.target * len(facts[fact].rewrites))] * row.target
        else:
            essence_rows.append(number)
            essence_places.append(length - 1)

    def on_device(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=device)

    return _Suffixes(
        tokens_rs=tokens.to(device),
        mask_rk=mask.to(device),
        positions_rs=positions.to(device),
        facts_r=on_device([fact for fact, _ in rows]),
        cache=None,
        below_rsh=None,
        target_rows_q=on_device(target_rows),
        target_places_q=on_device(places),
        targets_q=on_device(targets),
        target_share_q=on_device(shares),
        essence_rows_f=on_device(essence_rows),
        essence_places_f=on_device(essence_places),
    )
