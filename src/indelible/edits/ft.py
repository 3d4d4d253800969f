"""FT: fine-tune one MLP projection on the edited facts until they are learned.

The baseline of the editing papers (Zhu et al. 2020, arXiv 2012.00363; ROME's FT without a norm constraint): Adam on the
output projection of one MLP, all facts in each step, loss on the new objects only, stopped as soon as it is small. What
lies below the layer does not change, so it is run once; only this layer and those above it are run at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from indelible.edits.editor import EDITORS, Workbench, chosen_layers
from indelible.edits.update import Dense, restored
from indelible.edits.weight_editor import Change, Changer, WeightEditor
from indelible.edits.wordings import Row, rows_for
from indelible.facts.fact import Fact
from indelible.models.layout import Layout
from indelible.models.trace import capture, evaluating, resume_from, select_before_head

# The rate and the layer were measured on SmolLM2-135M: at the 5e-4 of the papers half of 24 facts were learned.
_DEPTHS = (0.234,)


@EDITORS.register("ft")
class FineTuning(WeightEditor):
    """Fine-tuning of one projection with early stop."""

    name: ClassVar[str] = "ft"
    uses_text: ClassVar[bool] = False
    layer: int | None = Field(default=None, description="Layer to change; None chooses by depth.")
    steps: int = Field(default=25, gt=0, description="Optimiser steps at most.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Of Adam.")
    stop_below: float = Field(default=0.05, ge=0, description="Mean loss on the new objects at which to stop.")

    def layers_in(self, layout: Layout) -> tuple[int, ...]:
        return chosen_layers(layout, None if self.layer is None else (self.layer,), _DEPTHS)

    def changer(self, bench: Workbench, paraphrases: int) -> Changer:
        return _Tuned(self, bench, paraphrases)


class _Tuned(Changer):
    def __init__(self, editor: FineTuning, bench: Workbench, paraphrases: int) -> None:
        self.editor, self.bench, self.paraphrases = editor, bench, paraphrases

    def change(self, facts: Sequence[Fact], earlier: Mapping[str, Tensor]) -> Change:
        editor, bench, model = self.editor, self.bench, self.bench.model
        (layer,) = editor.layers_in(bench.layout)
        name = bench.layout.mlp_out_weight[layer]
        rows = [row for fact in facts for row in rows_for(bench.tokenizer, fact, self.paraphrases, ()).rewrites]
        batch = _Batch(bench, layer, rows)
        weight = model.get_parameter(name)
        with restored(model, (name,)), evaluating(model):
            before = weight.detach().clone()
            weight.requires_grad_(True)
            try:
                optimiser = torch.optim.Adam([weight], lr=editor.learning_rate)
                for step in range(editor.steps):
                    optimiser.zero_grad()
                    loss = batch.loss()
                    if bench.progress is not None:
                        bench.progress(step + 1, editor.steps, f"fine-tuning one projection, loss {loss.item():.2f}")
                    if loss.item() < editor.stop_below:
                        break
                    loss.backward()
                    optimiser.step()
            finally:
                weight.requires_grad_(False)
                weight.grad = None
            return Change({name: Dense((weight.detach() - before).cpu())})


class _Batch:
    """All texts side by side, with what the layers below the edited one return for them."""

    def __init__(self, bench: Workbench, layer: int, rows: Sequence[Row]) -> None:
        self.model, self.layout, self.layer = bench.model, bench.layout, layer
        device = bench.model.device
        # The last target token is predicted, never read. Padding on the right is harmless to a causal model.
        length = max(len(row.tokens) for row in rows) - 1
        self.tokens = torch.zeros(len(rows), length, dtype=torch.long, device=device)
        self.mask = torch.zeros_like(self.tokens)
        places: list[tuple[int, int]] = []
        targets: list[int] = []
        shares: list[float] = []
        for number, row in enumerate(rows):
            read = len(row.tokens) - 1
            self.tokens[number, :read] = torch.tensor(row.tokens[:-1], device=device)
            self.mask[number, :read] = 1
            places += [(number, place) for place in range(read - row.target, read)]
            targets += row.tokens[-row.target :]
            shares += [1 / (row.target * len(rows))] * row.target
        self.rows, self.places = torch.tensor(places, device=device).T
        self.targets = torch.tensor(targets, device=device)
        self.shares = torch.tensor(shares, device=device)
        self.below: Tensor | None = None
        if layer > 0:
            block = self.layout.blocks[layer - 1]
            stopped = capture(self.model, outputs_of=[block], stop_after=block)
            with evaluating(self.model), torch.no_grad(), stopped as seen:
                self._logits()
            self.below = seen.outputs[block]

    def loss(self) -> Tensor:
        """Mean over texts of the mean negative log-likelihood of their target tokens."""
        head = self.model.get_submodule(self.layout.head)
        with select_before_head(head, self.rows, self.places):
            if self.below is None:
                logits = self._logits()
            else:
                as_tuple = self.layout.blocks_return_tuple
                with resume_from(self.model, self.layout.blocks, self.layer, self.below, as_tuple=as_tuple):
                    logits = self._logits()
        nll = functional.cross_entropy(logits[0].float(), self.targets, reduction="none")
        return (nll * self.shares).sum()

    def _logits(self) -> Tensor:
        logits: Tensor = self.model(self.tokens, attention_mask=self.mask, use_cache=False).logits
        return logits
