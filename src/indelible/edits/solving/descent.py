"""Gradient descent on the facts themselves: what the fine-tuning editors share.

FT, FT-L, FT-M and LoRA differ in what they train and in where an object's tokens are predicted; the loop is one. It
runs what lies below the lowest changed layer once, computes logits only where something is predicted, and takes texts
of like length together, in batches of a budget of tokens whose gradients are summed. Neither the batches nor the order
of the facts change the result beyond rounding, where a step is of all texts (published code takes one for every 64).

Suffixes: ``b`` texts of a batch, ``t`` tokens (padded on the right), ``p`` places where something is predicted, ``q``
predicted tokens, ``v`` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from indelible.edits.editor import Workbench
from indelible.edits.solving.texts import Row, rows_for
from indelible.edits.weight_editor import WeightEditor
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.models.batches import in_pieces, of_like_length, padded
from indelible.models.trace import capture, resume_from, select_before_head


@dataclass(frozen=True, order=True)
class Text:
    """What the model reads of one wording, and pairs of a position and a token that should be predicted there."""

    tokens: tuple[int, ...]
    answers: tuple[tuple[int, int], ...]


def teacher_forced(row: Row) -> Text:
    """Each of the object's tokens is predicted after those before it; the last one is never read."""
    tokens = row.tokens[:-1]
    return Text(tokens, tuple(enumerate(row.tokens[-row.target :], start=len(tokens) - row.target)))


def from_prompt(row: Row) -> Text:
    """All of the object's tokens are predicted from the prompt's last position, and none of them is read."""
    prompt = row.tokens[: -row.target]
    return Text(prompt, tuple((len(prompt) - 1, token) for token in row.tokens[-row.target :]))


class GradientEditor(WeightEditor):
    """Options of an editor that trains on the facts. Subclasses implement ``changer``, with ``descend``."""

    uses_text: ClassVar[bool] = False
    steps: int = Field(default=25, gt=0, description="Optimiser steps at most.")
    learning_rate: float = Field(default=1e-3, gt=0, le=3e37, description="Of Adam.")
    stop_below: float = Field(default=0.05, ge=0, description="Mean loss on the new objects at which to stop.")
    texts_per_step: int | None = Field(
        default=None, gt=0, description="Texts to an optimiser's step, of which it then takes several in each of steps."
    )
    tokens_per_batch: int = Field(
        default=1024, gt=0, description="Tokens run at once; the result does not depend on it, memory and time do."
    )

    def text(self, row: Row) -> Text:
        """What is read and predicted of one wording."""
        return teacher_forced(row)

    def texts(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> list[Text]:
        """All wordings of these facts; raises as ``rows_for``."""
        rows = [row for fact in facts for row in rows_for(bench.tokenizer, fact, paraphrases, ()).rewrites]
        return [self.text(row) for row in rows]


@dataclass(frozen=True)
class Batch:
    """Some texts side by side."""

    tokens_bt: Tensor
    mask_bt: Tensor
    rows_p: Tensor
    places_p: Tensor
    places_q: Tensor  # the number of its place, for each predicted token
    targets_q: Tensor
    shares_q: Tensor  # weight of each predicted token in the loss over all batches
    below: Tensor | None = None  # output of the block below the lowest changed one


def _lay_out(bench: Workbench, layer: int, texts: Sequence[Text], total: int) -> Batch:
    """These of ``total`` texts, with what the blocks below ``layer`` return for them.

    Over all batches the shares make the mean over texts of the mean over their predicted tokens.
    """
    device = bench.model.device
    tokens, mask = padded([text.tokens for text in texts])  # on the right, which is harmless to a causal model
    places: dict[tuple[int, int], int] = {}
    answers: list[tuple[int, int]] = []
    shares: list[float] = []
    for number, text in enumerate(texts):
        for position, token in text.answers:
            answers.append((places.setdefault((number, position), len(places)), token))
            shares.append(1 / (len(text.answers) * total))
    rows_p, places_p = torch.tensor(list(places), device=device).T
    places_q, targets_q = torch.tensor(answers, device=device).T
    shares_q = torch.tensor(shares, device=device)
    batch = Batch(tokens.to(device), mask.to(device), rows_p, places_p, places_q, targets_q, shares_q)
    if layer == 0 or not bench.layout.resumes:
        return batch
    block = bench.layout.blocks[layer - 1]
    with torch.no_grad(), capture(bench.model, outputs_of=[block], stop_after=block) as seen:
        _logits(bench.model, batch, {})
    return replace(batch, below=seen.outputs[block])


def _loss(bench: Workbench, layer: int, batch: Batch, weights: Mapping[str, Tensor]) -> Tensor:
    """The batch's part of the mean negative log-likelihood of the new objects, with these weights for the model's."""
    model, layout = bench.model, bench.layout
    with ExitStack() as stack:
        if batch.below is not None:
            as_tuple = layout.blocks_return_tuple
            stack.enter_context(resume_from(model, layout.blocks, layer, batch.below, as_tuple=as_tuple))
        head = model.get_submodule(layout.head)
        stack.enter_context(select_before_head(head, batch.rows_p, batch.places_p))
        log_probs_pv = torch.log_softmax(_logits(model, batch, weights)[0], dim=-1)
    return -(log_probs_pv[batch.places_q, batch.targets_q] * batch.shares_q).sum()


def _logits(model: PreTrainedModel, batch: Batch, weights: Mapping[str, Tensor]) -> Tensor:
    options = {"attention_mask": batch.mask_bt, "use_cache": False}
    found = functional_call(model, dict(weights), (batch.tokens_bt,), options, tie_weights=False)
    logits: Tensor = found.logits
    return logits


def descend(
    editor: GradientEditor,
    bench: Workbench,
    layer: int,
    texts: Sequence[Text],
    trained: Sequence[Tensor],
    *,
    weights: Callable[[], Mapping[str, Tensor]] = dict,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Adam on the mean loss over all texts, until it is small or the editor's steps are used up.

    Args:
        editor: whose options say how long and how fast.
        bench: whose model is in evaluation mode and has no other trained parameters than these, if any.
        layer: the lowest that changes.
        texts: what is read and predicted.
        trained: leaves that are changed in place.
        weights: what the model computes with in place of its own parameters, by name, made of the trained leaves.
        after_step: called when the leaves have changed.

    Raises:
        EditError: if the loss leaves the finite numbers.
    """
    pieces = in_pieces(texts, editor.texts_per_step or len(texts))
    laid_out = [_in_batches(editor, bench, layer, piece) for piece in pieces]
    optimiser = torch.optim.Adam(trained, lr=editor.learning_rate)
    for step in range(editor.steps):
        mean = 0.0
        for piece, parts in zip(pieces, laid_out, strict=True):
            optimiser.zero_grad()
            total = 0.0
            for part in parts:
                loss = _loss(bench, layer, part, weights())
                if not loss.requires_grad:
                    raise EditError(f"{type(bench.model).__name__} lets no gradient through.", "Edit another model.")
                loss.backward()
                total += float(loss.detach())
            if not math.isfinite(total):
                raise EditError(f"The loss is {total} after {step} steps.", "Give a lower learning_rate.")
            mean += total * len(piece) / len(texts)
            if total < editor.stop_below:
                continue
            optimiser.step()
            if after_step is not None:
                after_step()
        if bench.progress is not None:
            bench.progress(step + 1, editor.steps, f"fine-tuning, loss {mean:.2f}")
        if mean < editor.stop_below:
            break


def _in_batches(editor: GradientEditor, bench: Workbench, layer: int, texts: Sequence[Text]) -> list[Batch]:
    """Some texts side by side, those of like length together."""
    # In an order of their own, so that the order in which facts are given does not even change rounding.
    ordered = sorted(texts, key=lambda text: (len(text.tokens), text))
    groups = of_like_length([len(text.tokens) for text in ordered], editor.tokens_per_batch)
    return [_lay_out(bench, layer, [ordered[place] for place in group], len(texts)) for group in groups]
