"""Values: what a memory should return so that the model says the new object.

For every fact a vector delta, added to what the value layer's MLP returns at the subject's last token, is optimised
until the model predicts the new object (ROME, Meng et al. 2022, equation 4). This is nearly all of an edit's cost. Here

- everything before the subject's last token is run once for all texts that begin alike, and its attention keys and
  values are kept;
- everything up to the value layer is run once, and its output is kept;
- each step runs the rest of the tokens through the rest of the layers, for all facts together, and the first of these
  passes is also the one that says what the model predicts before any change;
- texts of like length share a batch, which is cut anew when facts leave, so that little of it is padding;
- logits are computed only where a target token, or the word after "<subject> is a", is predicted;
- no gradient of a parameter is computed, and a fact that has converged leaves the batch.

None of it changes the numbers: tests hold the trajectory against a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from indelible.edits.solving.suffixes import Reference, Site, Suffixes, SuffixRuns
from indelible.edits.solving.texts import FactRows
from indelible.errors import EditError
from indelible.models.batches import in_halves
from indelible.models.layout import Layout
from indelible.models.trace import evaluating
from indelible.progress import Progress

# Suffix tokens to a batch. More gain nothing: on two cores with SmolLM2-135M, 2048 cost 3 GB of activations.
_CPU_TOKENS = 2048
_GPU_TOKENS = 8192
_GPU_SHARE = 0.4  # of free memory, for the activations that a batch's backward pass keeps


@dataclass(frozen=True)
class ValueOptions:
    """How values are optimised.

    Attributes:
        steps: evaluations of the loss at most; there is one update fewer.
        learning_rate: of Adam.
        weight_decay: weight of |delta| / |reference|^2, as in the code of ROME and of those after it.
        kl_weight: weight of KL(after || before) of the word after "<subject> is a".
        clamp: longest delta, as a multiple of the reference's norm.
        converged: a fact whose loss is below this leaves.
        tokens_per_batch: facts are taken together up to this many suffix tokens; None fits them to memory. A batch that
            a GPU does not hold after all is taken in halves.
        sites: whose outputs in the value layer get a delta each: the MLP's, for PMET also attention's, before it.
        reference: whose output at the subject has the norm that clamp and weight decay are measured in: the site's, as
            in the code of ROME and PMET, or the block's, as in MEMIT's and AlphaEdit's, which is several times longer.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    kl_weight: float
    clamp: float
    converged: float = 0.1
    tokens_per_batch: int | None = None
    sites: tuple[Site, ...] = ("mlp",)
    reference: Reference = "block"


@dataclass(frozen=True)
class Values:
    """Changes of what the value layer's MLP returns, facts in order, with each fact's last loss and steps taken."""

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
    """Optimise one delta for each fact at the value layer; the model is left as it was. Progress counts steps of facts.

    Raises:
        EditError: if a loss becomes NaN or infinite, or memory holds not even one fact.
    """
    finished = 0

    def report(step: int, staying: int, size: int, loss: float) -> None:
        if progress is not None:
            done = (finished + size - staying) * options.steps + staying * step
            progress(done, len(facts) * options.steps, f"values, step {step}, facts left: {staying}, loss {loss:.2f}")

    def run(batch: Sequence[FactRows]) -> list[Values]:
        nonlocal finished
        found = [_optimise_batch(model, layout, layer, batch, options, report)]
        finished += len(batch)
        return found

    tokens = options.tokens_per_batch or _tokens_in_memory(model, layout, layer)
    with evaluating(model):
        try:
            parts = [part for batch in _fact_batches(facts, tokens) for part in in_halves(run, batch)]
        except torch.OutOfMemoryError as error:
            raise EditError(
                f"The memory of {model.device} does not hold one fact in all its texts.",
                "Give fewer contexts or paraphrases, a higher layer, or a device with more memory.",
            ) from error
    return Values(*(torch.cat([getattr(part, one.name) for part in parts]) for one in fields(Values)))


def _tokens_in_memory(model: PreTrainedModel, layout: Layout, layer: int) -> int:
    """Suffix tokens whose activations in the layers above ``layer`` fit into memory."""
    if model.device.type != "cuda":
        return _CPU_TOKENS
    # Of each block: about a dozen states of the residual stream's width, and four of the MLP's.
    width = 12 * layout.hidden_size + 4 * layout.memory(layer).key_width
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(_GPU_TOKENS, int(_GPU_SHARE * free / (4 * width * (layout.n_layers - layer)))))


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
    report: Callable[[int, int, int, float], None],
) -> Values:
    runs = SuffixRuns(model, layout, layer, options.sites, facts, options.reference)
    device = model.device
    shape = (len(options.sites), layout.hidden_size)
    deltas = [nn.Parameter(torch.zeros(shape, device=device)) for _ in facts]
    optimiser = torch.optim.Adam(deltas, lr=options.learning_rate)
    losses_f = torch.full((len(facts),), torch.inf, device=device)
    steps_f = torch.zeros(len(facts), dtype=torch.long)
    active = list(range(len(facts)))
    parts = runs.parts(active)
    limit_fs1 = (options.clamp * runs.reference_fs).unsqueeze(-1)
    before_fv = torch.empty(0)
    for step in range(options.steps):
        optimiser.zero_grad()
        chosen = torch.tensor(active, device=device)
        deltas_aso = torch.stack([deltas[fact] for fact in active])
        nll_a, essence_av = _losses(runs, parts, deltas_aso)
        if step == 0:  # nothing has been added yet
            before_fv = essence_av.detach()
        before_av = before_fv[chosen]
        kl_a = (essence_av.exp() * (essence_av - before_av)).sum(-1)
        loss_a = nll_a + options.kl_weight * kl_a
        if options.weight_decay:
            decay_a = (deltas_aso.norm(dim=-1) / runs.reference_fs[chosen] ** 2).sum(-1)
            loss_a = loss_a + options.weight_decay * decay_a
        if not bool(torch.isfinite(loss_a).all()):
            raise EditError(
                f"The loss of a value became {loss_a[~torch.isfinite(loss_a)][0].item()} at step {step + 1}.",
                "Lower learning_rate, kl_weight or weight_decay.",
            )
        losses_f[chosen] = loss_a.detach()
        steps_f[active] = step + 1
        staying = [fact for fact, loss in zip(active, loss_a.tolist(), strict=True) if loss >= options.converged]
        report(step + 1, len(staying), len(facts), loss_a.mean().item())
        if step == options.steps - 1 or not staying:
            break
        # Facts that have converged get no gradient, so Adam leaves them and their moments alone.
        stays_a = torch.tensor([fact in set(staying) for fact in active], device=device)
        if not nll_a.requires_grad:
            raise EditError(f"{type(model).__name__} lets no gradient through.", "Edit another model.")
        loss_a[stays_a].sum().backward()
        if step == 0 and not any(torch.any(delta.grad) for delta in deltas if delta.grad is not None):
            raise EditError(
                f"What layer {layer} returns at subjects does not reach what is predicted after them (layers above read"
                " keys and values of those below).",
                "Edit a lower layer.",
            )
        for fact in set(active) - set(staying):
            deltas[fact].grad = None
        optimiser.step()
        with torch.no_grad():
            for fact in staying:
                norm_s1 = deltas[fact].norm(dim=-1, keepdim=True)
                deltas[fact].mul_((limit_fs1[fact] / norm_s1).clamp(max=1))
        if len(staying) < len(active):
            active = staying
            parts = runs.parts(active)
    return Values(torch.stack([delta.detach()[-1] for delta in deltas]), losses_f, steps_f)


def _losses(runs: SuffixRuns, parts: Sequence[Suffixes], deltas_aso: Tensor) -> tuple[Tensor, Tensor]:
    """Mean negative log-likelihood of each fact's targets, and log-probabilities of the word after its essence."""
    nll_a = torch.zeros(len(deltas_aso), device=deltas_aso.device)
    essences, owners = [], []
    for part in parts:
        log_probs_qv, essence_ev = runs.predict(part, deltas_aso)
        nll_q = -log_probs_qv.gather(1, part.targets_q.unsqueeze(1)).squeeze(1) * part.target_share_q
        nll_a = nll_a.index_add(0, part.facts_r[part.target_rows_q], nll_q)
        essences.append(essence_ev)
        owners.append(part.facts_r[part.essence_rows_e])
    return nll_a, torch.cat(essences)[torch.cat(owners).argsort()]
