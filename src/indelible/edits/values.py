"""Values: what a memory should return so that the model says the new object.

For every fact a vector delta, added to what the value layer's MLP returns at the subject's last token, is optimised
until the model predicts the new object (ROME, Meng et al. 2022, equation 4). This is nearly all of an edit's cost, and
in a causal model most of the textbook loop computes the same things again and again. Here

- everything before the subject's last token is run once, and its attention keys and values are kept;
- everything below the value layer is run once, and its output is kept;
- each step runs the rest of the tokens through the rest of the layers, for all facts together;
- texts of like length share a batch, so that little of it is padding;
- logits are computed only where a target token, or the word after "<subject> is a", is predicted;
- no gradient of a parameter is computed, and a fact that has converged leaves the batch.

None of it changes the numbers: tests hold the trajectory against a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from indelible.edits.suffixes import Suffixes, keep_facts, predict, prepare
from indelible.edits.wordings import FactRows
from indelible.models.layout import Layout
from indelible.models.trace import evaluating

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ValueOptions:
    """How values are optimised.

    Attributes:
        steps: evaluations of the loss at most; there is one update fewer.
        learning_rate: of Adam.
        weight_decay: weight of |delta| / |reference|^2, as in ROME's code.
        kl_weight: weight of KL(after || before) of the word after "<subject> is a".
        clamp: longest delta, as a multiple of the reference's norm.
        converged: a fact whose loss is below this leaves.
        tokens_per_batch: facts are taken together up to this many suffix tokens.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    kl_weight: float
    clamp: float
    converged: float = 0.1
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
        progress: called with (steps done, steps at most, note), counted over facts.
    """
    parts: list[Values] = []
    finished = 0
    for batch in _fact_batches(facts, options.tokens_per_batch):

        def report(step: int, staying: int, loss: float, before: int = finished, size: int = len(batch)) -> None:
            if progress is not None:
                done = (before + size - staying) * options.steps + staying * step
                progress(
                    done, len(facts) * options.steps, f"values, step {step}, {staying} facts left, loss {loss:.2f}"
                )

        with evaluating(model):
            parts.append(_optimise_batch(model, layout, layer, batch, options, report))
        finished += len(batch)
    return Values(
        torch.cat([part.deltas_fo for part in parts]),
        torch.cat([part.losses_f for part in parts]),
        torch.cat([part.steps_f for part in parts]),
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


def _optimise_batch(
    model: PreTrainedModel,
    layout: Layout,
    layer: int,
    facts: Sequence[FactRows],
    options: ValueOptions,
    report: Callable[[int, int, float], None],
) -> Values:
    parts, reference_f, essence_before_fv = prepare(model, layout, layer, facts)
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
        nll_a, essence_av = _losses(model, layout, layer, parts, deltas_ao)
        before_av = essence_before_fv[chosen]
        kl_a = (essence_av.exp() * (essence_av - before_av)).sum(-1)
        decay_a = deltas_ao.norm(dim=-1) / reference_f[chosen] ** 2
        loss_a = nll_a + options.kl_weight * kl_a + options.weight_decay * decay_a
        losses_f[chosen] = loss_a.detach()
        steps_f[active] = step + 1
        staying = [fact for fact, loss in zip(active, loss_a.tolist(), strict=True) if loss >= options.converged]
        report(step + 1, len(staying), loss_a.mean().item())
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
            parts = [kept for part in parts if len((kept := keep_facts(part, stays_a)).facts_r)]
            active = staying
    return Values(torch.stack([delta.detach() for delta in deltas]), losses_f, steps_f)


def _losses(
    model: PreTrainedModel, layout: Layout, layer: int, parts: Sequence[Suffixes], deltas_ao: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean negative log-likelihood of each fact's targets, and log-probabilities of the word after its essence."""
    nll_a = torch.zeros(len(deltas_ao), device=deltas_ao.device)
    essences, owners = [], []
    for part in parts:
        log_probs_qv, essence_ev = predict(model, layout, layer, part, deltas_ao)
        nll_q = -log_probs_qv.gather(1, part.targets_q.unsqueeze(1)).squeeze(1) * part.target_share_q
        nll_a = nll_a.index_add(0, part.facts_r[part.target_rows_q], nll_q)
        essences.append(essence_ev)
        owners.append(part.facts_r[part.essence_rows_e])
    return nll_a, torch.cat(essences)[torch.cat(owners).argsort()]
