"""Values: what a memory should return so that the model says the new object.

For every fact a vector delta, added to what the value layer's MLP returns at the subject's last token, is optimised
until the model predicts the new object (ROME, Meng et al. 2022, equation 4). This is nearly all of an edit's cost. Here

- everything before the subject's last token is run once, in one tree of all that texts begin with alike, and its
  attention keys and values are kept;
- everything up to the value layer is run once, and its output is kept;
- each step runs the rest of the tokens through the rest of the layers, for all facts together, and the first of these
  passes is also the one that says what the model predicts before any change;
- texts stand side by side in rows, which are cut anew when facts leave, so that little of them is padding;
- logits are computed only where a target token, or the word after "<subject> is a", is predicted;
- no gradient of a parameter is computed, and a fact that has converged leaves the batch.

None of it changes the numbers: tests hold the trajectory against a plain loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from indelible.edits.solving.parts import Suffixes
from indelible.edits.solving.suffixes import Reference, Site, SuffixRuns
from indelible.edits.solving.texts import FactRows
from indelible.edits.solving.views import Views
from indelible.errors import EditError
from indelible.models.batches import in_halves
from indelible.models.layout import Layout
from indelible.models.trace import evaluating
from indelible.progress import Progress

# Suffix tokens to a batch. More gain nothing: on two cores with SmolLM2-135M, 2048 cost 3 GB of activations.
_CPU_TOKENS = 2048
_GPU_TOKENS = 8192
_GPU_SHARE = 0.4  # of free memory, for the activations that a batch's backward pass keeps

Optimiser = Literal["normalised", "adam"]
_MOMENTUM = 0.5  # of normalised steps


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
        said_kl: PMET's other way of leaving, None for none: where every target token is the likeliest, a fact leaves if
            its KL term is at most this, and else the targets count a tenth in its next step.
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
    optimiser: Optimiser = "adam"
    said_kl: float | None = None


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
    views: Views | None = None,
) -> Values:
    """Optimise one delta for each fact at the value layer; the model is left as it was. Progress counts steps of facts.

    With several views each step is taken in the next of them, and a fact has converged once it has in all, in a row.

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
        found = [_optimise_batch(model, layout, layer, batch, options, report, views or Views(model))]
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
    views: Views,
) -> Values:
    device, size = model.device, len(facts)
    deltas_fso = nn.Parameter(torch.zeros(size, len(options.sites), layout.hidden_size, device=device))
    running = staying = list(range(size))
    running_a, idle = torch.arange(size, device=device), 0
    looks = []
    for view in range(len(views)):
        with views.seen(view):
            looks.append(_Look(SuffixRuns(model, layout, layer, options.sites, facts, options.reference), options))
            if view:  # what was predicted there before any change
                looks[view].objective(looks[view].parts, running_a, deltas_fso, with_slopes=False)
    runs = looks[0].runs
    update = _Update(runs, options, deltas_fso)
    stays_f, losses_f = torch.ones(size, dtype=torch.bool, device=device), torch.zeros(size, device=device)
    right_f = torch.zeros(size, dtype=torch.long, device=device)  # in so many views in a row
    losses, steps = [math.inf] * size, [0] * size
    for step in range(options.steps):
        last, view = step == options.steps - 1, step % len(views)
        with views.seen(view):
            objective = looks[view].objective
            loss_a, slopes = objective(looks[view].parts, running_a, deltas_fso, with_slopes=not last)
            right_a = (loss_a < options.converged) | objective.settled_f[running_a]
            right_f[running_a] = torch.where(right_a, right_f[running_a] + 1, 0)
            stays_a = stays_f[running_a] & (right_f[running_a] < len(views))
            stays_f[running_a], losses_f[running_a] = stays_a, loss_a
            # The step's one look at the device.
            seen = torch.cat([loss_a, stays_a]).tolist()
            were = set(staying)
            found = {fact: loss for fact, loss in zip(running, seen[: len(running)], strict=True) if fact in were}
            for fact, loss in found.items():
                losses[fact], steps[fact] = loss, step + 1
                if not math.isfinite(loss):
                    raise EditError(
                        f"The loss of a value became {loss} at step {step + 1}.",
                        "Lower learning_rate, kl_weight or weight_decay.",
                    )
            staying = [fact for fact, stays in zip(running, seen[len(running) :], strict=True) if stays]
            report(step + 1, len(staying), size, sum(found.values()) / len(found))
            if last or not staying:
                break
            slopes_fso = slopes()
        if step == 0 and not bool(slopes_fso.any()):
            raise EditError(
                f"What layer {layer} returns at subjects does not reach what is predicted after them (layers above read"
                " keys and values of those below).",
                "Edit a lower layer.",
            )
        update(losses_f, slopes_fso, stays_f)
        # Facts that have left are run with the others until that has cost as much as cutting anew, about a pass.
        idle += runs.cost(running) - runs.cost(staying)
        if idle >= runs.pass_tokens:
            running, idle = staying, 0
            running_a = torch.tensor(running, device=device)
            for look in looks:
                look.parts = look.runs.parts(running)
    return Values(deltas_fso.detach()[:, -1].clone(), torch.tensor(losses, device=device), torch.tensor(steps))


class _Look:
    """The facts' texts as one view of the model reads them."""

    def __init__(self, runs: SuffixRuns, options: ValueOptions) -> None:
        self.runs, self.objective = runs, _Objective(runs, options)
        self.parts = runs.parts(range(len(runs.reference_fs)))


class _Objective:
    """The loss of each fact's deltas; the first call, with deltas of 0, says what was predicted before.

    Texts go forth and back part by part, so that memory holds the activations of one part.
    """

    def __init__(self, runs: SuffixRuns, options: ValueOptions) -> None:
        self._runs, self._options = runs, options
        self._before_fv: Tensor | None = None
        size, device = len(runs.reference_fs), runs.reference_fs.device
        self._emphasis_f = torch.ones(size, device=device)  # of targets in the loss
        self.settled_f = torch.zeros(size, dtype=torch.bool, device=device)
        """Facts that leave by ``said_kl``, as of the last call."""

    def __call__(
        self, parts: Sequence[Suffixes], running_a: Tensor, deltas_fso: nn.Parameter, *, with_slopes: bool
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """Losses of the facts that are run, and what makes their slopes by all deltas, if these are wanted; only then
        the last part goes back, so that it need not where all facts leave."""
        losses_a, slopes_fso = torch.zeros(len(running_a), device=deltas_fso.device), torch.zeros_like(deltas_fso)
        known = self._before_fv is not None
        unsaid_a, kls_a = torch.zeros_like(losses_a), torch.zeros_like(losses_a)

        forth: list[Tensor] = []

        def add(part_a: Tensor) -> None:
            losses_a.add_(part_a.detach())
            if with_slopes:
                forth.append(part_a)

        def slopes() -> Tensor:
            while forth:
                slopes_fso.add_(torch.autograd.grad(forth.pop().sum(), deltas_fso)[0])
            return slopes_fso

        for part in parts:
            slopes()  # of the part before
            log_probs_qv, essence_ev = self._runs.predict(part, deltas_fso[running_a])
            if not log_probs_qv.requires_grad:
                raise EditError(f"{type(self._runs.model).__name__} lets no gradient through.", "Edit another model.")
            owners_e = part.facts_e
            if self._before_fv is None:
                self._before_fv = essence_ev.new_empty(len(deltas_fso), essence_ev.shape[-1])
            if not known:
                self._before_fv[running_a[owners_e]] = essence_ev.detach()
            nll_q = -log_probs_qv.gather(1, part.targets_q.unsqueeze(1)).squeeze(1) * part.shares_q
            kl_e = (essence_ev.exp() * (essence_ev - self._before_fv[running_a[owners_e]])).sum(-1)
            owners_q, kl_e = part.facts_q, self._options.kl_weight * kl_e
            part_a = torch.zeros_like(losses_a).index_add(0, owners_q, nll_q) * self._emphasis_f[running_a]
            add(part_a.index_add(0, owners_e, kl_e))
            if self._options.said_kl is not None:
                kls_a.index_add_(0, owners_e, kl_e.detach())
                likeliest_q = log_probs_qv.argmax(-1) == part.targets_q
                unsaid_a.index_add_(0, owners_q, (~likeliest_q).to(unsaid_a))
        if self._options.weight_decay:
            decay_fs = deltas_fso.norm(dim=-1) / self._runs.reference_fs**2
            add(self._options.weight_decay * decay_fs.sum(-1)[running_a])
        if self._options.said_kl is not None:
            self._emphasis_f[running_a] = torch.where(unsaid_a == 0, 0.1, 1.0)
            self.settled_f[running_a] = (unsaid_a == 0) & (kls_a <= self._options.said_kl)
        return losses_a, slopes


class _Update:
    """What a step does to the deltas of the facts that stay, given their losses and the losses' slopes."""

    def __init__(self, runs: SuffixRuns, options: ValueOptions, deltas_fso: nn.Parameter) -> None:
        self._deltas_fso, self._limits_fs1 = deltas_fso, (options.clamp * runs.reference_fs).unsqueeze(-1)
        self._normalised = options.optimiser == "normalised"
        self._optimiser: torch.optim.Optimizer
        if self._normalised:
            self._optimiser = torch.optim.SGD([deltas_fso], lr=options.learning_rate, momentum=_MOMENTUM)
        else:
            self._optimiser = torch.optim.Adam([deltas_fso], lr=options.learning_rate)

    @torch.no_grad()
    def __call__(self, losses_f: Tensor, slopes_fso: Tensor, stays_f: Tensor) -> None:
        deltas_fso, before_fso = self._deltas_fso, self._deltas_fso.clone()
        if self._normalised:
            lengths_fs1 = self._limits_fs1 * losses_f.clamp(0, 1).sqrt()[:, None, None]
            slopes_fso = lengths_fs1 * functional.normalize(slopes_fso, dim=-1)
        deltas_fso.grad = slopes_fso
        self._optimiser.step()
        deltas_fso.mul_((self._limits_fs1 / deltas_fso.norm(dim=-1, keepdim=True)).clamp(max=1))
        # Facts that stay have all taken the same number of steps. What the optimiser holds of the others is of no use.
        deltas_fso.copy_(torch.where(stays_f[:, None, None], deltas_fso, before_fso))
