"""Log-probabilities of labels: logits are made where a label is, some positions at a time, and never kept.

Logits are by far the widest thing in a small model's step. Here the trunk runs once over all tokens; the states that
predict labels go through the rest of the model's own forward (its head, and whatever it does to logits) in pieces, all
but the first of which are computed again for their gradients. Memory so grows with the states, not the vocabulary.
Whether a family's rest can be run by itself is tried (``proof``); where not, logits are taken whole.

Shapes: b rows, t tokens, n labels, v vocabulary, d hidden width.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from indelible.models.trace import returning
from indelible.tuning.objective import NO_LOSS

LOGITS = 2**25
"""Logits in a piece: 128 MiB of float32, two or three times."""

LOWEST = -1e4
"""Of log-probabilities in entropies, to which what is impossible adds nothing."""

Forward = Callable[..., Any]


@dataclass
class Scored(ModelOutput):
    """What is known of each token that bears loss, ``(b, t - 1)`` and 0 at all others, and the loss.

    By the names that trl's trainers ask for. ``loss`` is the sum over labels of minus ``log_probs``, over their number
    or the one given, with the routers' loss where the model is asked for it (as its configuration weighs it; a batch
    that has a part of the labels bears that part of it).
    """

    loss: Tensor
    log_probs: Any = None
    label_mask: Any = None
    aux_loss: Tensor | None = None
    entropy: Any = None
    log_sum_sq_probs: Tensor | None = None
    mean_logits: Tensor | None = None
    is_top1: Any = None

    @property
    def num_valid_tokens(self) -> Any:
        """As trl before 1.15 asks for it; so with the other two."""
        return self.label_mask.sum()

    @property
    def num_correct_tokens(self) -> Any:
        return self.is_top1.sum()

    @property
    def entropy_sum(self) -> Any:
        return self.entropy.detach().sum()


class _OfLabels(torch.autograd.Function):
    """By logits ``(n, v)`` and labels ``(n,)``: log-probabilities, entropies, the logarithm of the sum of squared
    probabilities, mean logits, and whether the label is the most likely; all ``(n,)``, float32, and only the first
    without ``statistics``.

    With log-probabilities l, probabilities p and entropy H, dl_y/dz = [y] - p and dH/dz = -p (l + H). Gradients take
    over the buffer of log-probabilities: of what is as wide as logits there are never more than two or three.
    """

    @staticmethod
    def forward(ctx: Any, logits_nv: Tensor, labels_n: Tensor, temperature: float, statistics: bool) -> Any:
        ctx.set_materialize_grads(False)
        ctx.dtype, ctx.temperature = logits_nv.dtype, temperature
        scaled_nv = logits_nv.float() if temperature == 1 else logits_nv.float() / temperature
        log_probs_nv = scaled_nv.log_softmax(-1)
        found_n = log_probs_nv.gather(1, labels_n[:, None])[:, 0]
        if not statistics:
            ctx.save_for_backward(log_probs_nv, labels_n)
            return found_n, None, None, None, None
        probs_nv = log_probs_nv.exp()
        entropy_n = -torch.linalg.vecdot(probs_nv, log_probs_nv.clamp_min(LOWEST))
        squares_n = torch.linalg.vecdot(probs_nv, probs_nv).log()
        mean_n, first_n = scaled_nv.mean(-1), scaled_nv.argmax(-1) == labels_n
        ctx.save_for_backward(log_probs_nv, labels_n, entropy_n)
        ctx.mark_non_differentiable(squares_n, mean_n, first_n)
        return found_n, entropy_n, squares_n, mean_n, first_n

    @staticmethod
    def backward(ctx: Any, of_found_n: Tensor | None, of_entropy_n: Tensor | None = None, *_: None) -> Any:
        log_probs_nv, labels_n, *entropy = ctx.saved_tensors
        if of_found_n is None:
            of_found_n = torch.zeros_like(log_probs_nv[:, 0])
        weights = -of_found_n[:, None]
        if of_entropy_n is not None:
            weights = weights - of_entropy_n[:, None] * (log_probs_nv.clamp_min(LOWEST) + entropy[0][:, None])
        gradient_nv = log_probs_nv.exp_().mul_(weights)  # in place: a second backward pass would be refused
        gradient_nv.scatter_add_(1, labels_n[:, None], of_found_n[:, None])
        if ctx.temperature != 1:
            gradient_nv.div_(ctx.temperature)
        return gradient_nv.to(ctx.dtype), None, None, None


def scored(
    model: PreTrainedModel,
    forward: Forward,
    inputs: Mapping[str, Any],
    labels_bt: Tensor,
    *,
    whole: bool,
    temperature: float = 1.0,
    statistics: bool = False,
    count: Tensor | int | None = None,
) -> Scored:
    """What the model makes of labels, each at the place of its own token, NO_LOSS where there is none.

    Args:
        forward: the model's, as it is called; or what it was before something took its place.
        inputs: for it.
        whole: take logits everywhere, for families whose rest cannot be run by itself.
        temperature: that logits are divided by.
        statistics: entropies and what else trl reports, too.
        count: that the loss is divided by; the number of labels where None.
    """
    mask_bt = labels_bt[:, 1:] != NO_LOSS
    at = mask_bt.nonzero(as_tuple=True)  # the only wait for a GPU
    labels_n = labels_bt[:, 1:][at]
    config = model.config.get_text_config()
    wanted = labels_n.split(max(1, LOGITS // max(1, config.vocab_size)))
    size = len(wanted[0]) or 1
    options = {**inputs, "use_cache": False}
    routed = options.get("output_router_logits") or getattr(config, "output_router_logits", False)
    if labels_bt.shape[1] > 1 and not routed:  # no label asks what follows the last token
        options |= {name: one[:, :-1] for name, one in inputs.items() if getattr(one, "shape", None) == labels_bt.shape}
    trunk, seen, pieces = model.base_model, list[Any](), list[Tensor]()

    def select(_module: Any, _args: Any, returned: Any) -> Any:
        seen.append(returned)
        pieces.extend(returned.last_hidden_state[at].split(size))
        return _with_states(returned, pieces[0])

    def first() -> tuple[tuple[Tensor, ...], Tensor | None]:
        with nullcontext() if whole else trunk.register_forward_hook(select):
            outputs = forward(**options)
        logits_nv = outputs.logits[0]
        if whole:
            pieces.extend(outputs.logits[at].split(size))
            logits_nv = pieces[0]
        return _OfLabels.apply(logits_nv, wanted[0], temperature, statistics), outputs.get("aux_loss")

    def rest(piece: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        if not whole:
            with returning([trunk], _with_states(seen[0], piece)):
                piece = forward(**options).logits[0]
        found: tuple[Tensor, ...] = _OfLabels.apply(piece, labels, temperature, statistics)
        return found

    found, auxiliary = first()
    further = list(zip(pieces[1:], wanted[1:], strict=True))
    again = partial(checkpoint, rest, use_reentrant=False) if torch.is_grad_enabled() and not whole else rest
    every = [found, *(again(piece, labels) for piece, labels in further)]

    def joined(part: int) -> Tensor | None:
        parts = [one[part] for one in every]
        return None if parts[0] is None else parts[0].new_zeros(mask_bt.shape).masked_scatter(mask_bt, torch.cat(parts))

    number = mask_bt.sum()
    loss = -torch.cat([one[0] for one in every]).sum() / (number.clamp_min(1) if count is None else count)
    if auxiliary is not None:
        share = 1 if count is None else number / count
        loss = loss + share * getattr(config, "router_aux_loss_coef", 0.0) * auxiliary
    return Scored(loss, joined(0), mask_bt, auxiliary, *(joined(part) for part in range(1, 5)))


def _with_states(outputs: Any, states_nd: Tensor) -> Any:
    """What a trunk returned, with these as its only states, in one row."""
    return type(outputs)(**{**outputs, "last_hidden_state": states_nd[None]})


def score_labels(model: PreTrainedModel, *, whole: bool, temperature: float = 1.0, statistics: bool = False) -> None:
    """Have the model answer labels with ``Scored``, for as long as it keeps the forward that this puts in the place of
    its own, which answers all else."""
    inner = model.forward

    @wraps(type(model).forward)
    def forward(_self: Any, *args: Any, labels: Tensor | None = None, **options: Any) -> Any:
        count = options.pop("num_items_in_batch", None)
        if labels is None:
            return inner(*args, **options)
        options.pop("fused_lm_head", None)  # how trl asks for it
        how = {"whole": whole, "temperature": temperature, "statistics": statistics, "count": count}
        return scored(model, partial(inner, *args), options, labels, **how)

    model.forward = types.MethodType(forward, model)
