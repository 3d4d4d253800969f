"""What the locate-then-edit editors share: values are optimised, and the memories' weights are solved for.

ROME, R-ROME, EMMET, MEMIT, PMET and AlphaEdit are one problem with different constraints (see solve.py), so that an
editor is its options and its solver. The defaults were measured on SmolLM2-135M with ``benchmarks/edit_sweep.py``;
``published: true`` gives all that the methods' own code does in their place (docs/editors.md has both in a table).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from indelible.edits.deltas.weights import Change
from indelible.edits.editor import Workbench
from indelible.edits.published import Published
from indelible.edits.solving.covariance import bystander_moments, second_moments
from indelible.edits.solving.keys import Compared, begins_with_a_sink
from indelible.edits.solving.solve import factorise
from indelible.edits.solving.spread import Solver, spread
from indelible.edits.solving.suffixes import Reference
from indelible.edits.solving.texts import After, FactRows, Written, rows_for, sample_contexts
from indelible.edits.solving.values import Optimiser, ValueOptions, optimise_values
from indelible.edits.solving.views import Views, shaken
from indelible.edits.weight_editor import Changer
from indelible.facts.fact import Fact

_VIEWS = 2
"""Views of the model, beside the one as it stands, in which a durable edit is made."""
_RATES: Mapping[Optimiser, float] = {"normalised": 0.25, "adam": 0.5}


Measured = Annotated[
    Reference,
    Field(
        description="Whose output at the subject clamp and weight_decay are measured in: the value layer's block, or"
        " the site of a change (its MLP, in PMET also attention)."
    ),
]


class ClosedFormEditor(Published):
    """Options of an editor that optimises values and solves for the weights. Subclasses implement ``solver``."""

    covariance_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Tokens for the covariance; None takes 20,000, or twice the key width if more; 0 takes the "
        "identity in its place, as the published ROME does for Llama.",
    )
    covariance_texts: int | None = Field(
        default=None,
        gt=0,
        description="Texts of the corpus for the covariance, each read by itself, in place of so many tokens; all "
        "where there are fewer (published: 100,000).",
    )
    first_tokens: bool = Field(
        default=False,
        description="Take the first token of a text as any other, as published: in the covariance, and where a wording "
        "begins with its subject, though in many models its key is an attention sink's.",
    )
    bystander_weight: float = Field(
        default=10.0, ge=0, description="Preservation of bystanders' keys against text's; 0 is the published method."
    )
    optimiser: Optimiser = Field(
        default="normalised", description="Of values: gradient steps of one length with momentum, or adam as published."
    )
    steps: int = Field(default=25, gt=0, description="Steps of value optimisation.")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=3e37,
        description="Of value optimisation; None takes 0.5 for adam, else 0.25 (length of a step, in units of clamp).",
    )
    weight_decay: float = Field(default=0.5, ge=0, description="Of value optimisation.")
    kl_weight: float = Field(default=0.0625, ge=0, description="Keeps what the subject is.")
    kl_after: After = Field(
        default="is a", description="Where the next word is kept: after '<subject> is a', or its subject as published."
    )
    clamp: float = Field(default=0.75, gt=0, description="Longest value change, in norms of what reference names.")
    reference: Measured = "block"
    converged: float = Field(default=0.1, ge=0, description="Loss below which a fact's value is not changed further.")
    contexts: Annotated[int, Field(ge=0)] | Written = Field(
        default=2,
        description="Texts that the model writes before a wording: so many, or those of rome's or memit's.",
    )
    bare_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Weight of the bare wording's key in the average over contexts; None weighs all texts alike, as "
        "ROME's code does, 0.5 is MEMIT's.",
    )
    durable: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Optimise values that are right, too, where weights around the edit are moved at random by this "
        "share of their size, so that they outlast training: 0.1, say; 0 is the published method.",
    )

    keeps_keys: ClassVar[bool] = False
    """Whether later edits are to leave the keys of this one alone."""
    compared: ClassVar[Compared] = "block"
    """Whose output in the value layer tells what is still missing of a change."""
    as_published: ClassVar[Mapping[str, Any]] = {
        "covariance_texts": 100_000,
        "first_tokens": True,
        "bystander_weight": 0.0,
        "optimiser": "adam",
        "steps": 25,
        "learning_rate": 0.5,
        "weight_decay": 0.5,
        "kl_weight": 0.0625,
        "kl_after": "subject",
        "clamp": 0.75,
        "reference": "block",
        "converged": 0.05,
        "contexts": "memit",
        "bare_share": 0.5,
        "durable": 0.0,
    }

    @classmethod
    def from_code(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Without Adam's learning rate where another optimiser, which counts it in other units, is given."""
        rate = {"learning_rate"} if given.get("optimiser", "adam") != "adam" else set()
        return {name: value for name, value in cls.as_published.items() if name not in rate}

    @abstractmethod
    def solver(self, bench: Workbench, layers: Sequence[int]) -> Solver:
        """How this editor solves for one layer's weights, made once on the unedited model."""

    def value_options(self) -> ValueOptions:
        """The options of value optimisation among these."""
        named = {one.name for one in fields(ValueOptions)} & type(self).model_fields.keys()
        given = {name: getattr(self, name) for name in named}
        given["learning_rate"] = self.learning_rate or _RATES[self.optimiser]
        return ValueOptions(**given)

    def share(self, layers_left: int) -> float:
        """What the missing change is divided by at a layer, when so many layers (it included) are still to come."""
        return float(layers_left)

    def preserved(self, bench: Workbench, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """By layer, the second moment of the keys that its memory should go on serving, on the model's device."""
        tokens = self.covariance_tokens
        if tokens is None:
            tokens = max(20_000, *(2 * bench.layout.memory(layer).key_width for layer in layers))
        if tokens == 0:
            widths = {layer: bench.layout.memory(layer).key_width for layer in layers}
            moments: Mapping[int, Tensor] = {
                layer: torch.eye(width, device=bench.model.device) for layer, width in widths.items()
            }
        else:
            moments = second_moments(bench, layers, tokens, texts=self.covariance_texts, first_tokens=self.first_tokens)
        if bench.bystanders and self.bystander_weight:
            beside = bystander_moments(bench, layers, first_tokens=self.first_tokens)
            moments = {layer: moments[layer] + self.bystander_weight * beside[layer] for layer in layers}
        return moments

    def factorised(self, bench: Workbench, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """By layer, the Cholesky factor of what ``preserved`` returns."""
        return {layer: factorise(moment) for layer, moment in self.preserved(bench, layers).items()}

    def changer(self, bench: Workbench, paraphrases: int) -> Changer:
        return _ClosedForm(self, bench, paraphrases)


class _ClosedForm(Changer):
    def __init__(self, editor: ClosedFormEditor, bench: Workbench, paraphrases: int) -> None:
        self.editor, self.bench, self.paraphrases = editor, bench, paraphrases
        self.layers = editor.layers_in(bench.layout)
        for layer in self.layers:
            bench.layout.memory(layer)  # refuses, before anything is read, a layer that has none
        self.contexts = sample_contexts(bench.model, bench.tokenizer, editor.contexts, seed=bench.seed)
        self.solver = editor.solver(bench, self.layers)
        self.views = Views(bench.model)
        if editor.durable:
            self.views = shaken(bench.model, bench.layout, self.layers, editor.durable, _VIEWS, bench.seed)

    @cached_property
    def sink(self) -> bool:
        """Whether the first token of a text has the attention sink's key in these layers."""
        return begins_with_a_sink(self.bench.model, self.bench.layout, self.layers)

    def change(self, facts: Sequence[Fact], earlier: Mapping[str, Tensor]) -> Change:
        rows, deltas_fo = self._values(facts)
        return self._written(facts, rows, deltas_fo, earlier)

    def apart(self, facts: Sequence[Fact]) -> Iterator[Change]:
        """Values depend on the unedited model alone, so all of them are optimised in one batch."""
        rows, deltas_fo = self._values(facts)
        for number, row in enumerate(rows):
            yield self._written(facts[number : number + 1], [row], deltas_fo[number : number + 1], {})

    def _values(self, facts: Sequence[Fact]) -> tuple[list[FactRows], Tensor]:
        bench, layer = self.bench, self.layers[-1]
        rows = self._rows(facts, sink=False)
        first = any(row.subject == 0 for texts in rows for wording in texts.wordings for row in wording)
        if first and not self.editor.first_tokens and self.sink:
            rows = self._rows(facts, sink=True)
        options = self.editor.value_options()
        values = optimise_values(bench.model, bench.layout, layer, rows, options, bench.progress, self.views)
        return rows, values.deltas_fo

    def _rows(self, facts: Sequence[Fact], *, sink: bool) -> list[FactRows]:
        tokenizer, after = self.bench.tokenizer, self.editor.kl_after
        return [rows_for(tokenizer, fact, self.paraphrases, self.contexts, sink=sink, kl_after=after) for fact in facts]

    def _written(
        self, facts: Sequence[Fact], rows: Sequence[FactRows], deltas_fo: Tensor, earlier: Mapping[str, Tensor]
    ) -> Change:
        editor = self.editor
        change, arrived_f = spread(
            self.bench,
            self.layers,
            rows,
            deltas_fo,
            self.solver,
            share=editor.share,
            compared=editor.compared,
            bare_share=editor.bare_share,
            earlier=earlier,
        )
        arrived = {
            fact.id: share for fact, share in zip(facts, arrived_f.tolist(), strict=True) if math.isfinite(share)
        }
        return Change(change.deltas, change.keys if editor.keeps_keys else {}, arrived)
