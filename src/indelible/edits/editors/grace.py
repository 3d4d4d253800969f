"""GRACE: a codebook of edits beside one memory; no weight changes (Hartvigsen et al. 2023, arXiv 2211.11031).

The key of an edit is what enters the memory at the last token of the prompt; its value is what the memory has to return
there for the model to say the new object. Where a key lies near enough to an entry's, the entry answers (codebook.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from pydantic import Field, StrictInt
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.beside.codebook import Codebook, CodebookManifest, Entries
from indelible.edits.editor import EDITORS, Editor, Workbench
from indelible.edits.solving.keys import subject_keys
from indelible.edits.solving.texts import FactRows, Row, rows_for
from indelible.edits.solving.values import ValueOptions, optimise_values
from indelible.facts.fact import Fact
from indelible.models.layout import Layout
from indelible.models.trace import evaluating

_Made = tuple[Tensor, Tensor, str]


@EDITORS.register("grace")
class Grace(Editor):
    """A codebook beside one memory.

    Facts enter one after another, in their order, and so do those of an earlier codebook before them (``earlier``):
    what is returned holds both and takes the earlier one's place. With paraphrases, every further wording is an edit of
    its own, with its own key and value. Two things differ from the paper: values are optimised for all prompts at once,
    apart from each other, and a prompt is edited even where the model says the new object already.
    """

    name: ClassVar[str] = "grace"
    # Measured on SmolLM2-135M, where prompts of one relation end in keys that are 0.15 of their norm apart at layer 12,
    # and 0.5 from layer 23 on (of 30): below, radii that hold anything beyond rounding take in the neighbours as well.
    depths: ClassVar[tuple[float, ...]] = (0.79,)
    uses_text: ClassVar[bool] = False
    layer: StrictInt | None = Field(default=None, description="Layer of the memory; None chooses by depth.")
    radius: float = Field(default=0.2, gt=0, description="Deferral radius of a new entry, in norms of its key.")
    steps: int = Field(default=50, gt=0, description="Steps of value optimisation.")
    learning_rate: float = Field(default=0.5, gt=0, le=3e37, description="Of value optimisation.")

    def parameters_in(self, model: PreTrainedModel, layout: Layout) -> tuple[str, ...]:
        (layer,) = self.layers_in(layout)
        return (layout.memory(layer).weight,)

    def make(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Codebook:
        made = [entry for entries in self._made(bench, facts, paraphrases) for entry in entries]
        return self._codebook(bench, facts, paraphrases, made)

    def make_each(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Iterator[Codebook]:
        """Keys and values depend on the unedited model alone, so they are all found together."""
        for fact, made in zip(facts, self._made(bench, facts, paraphrases), strict=True):
            yield self._codebook(bench, [fact], paraphrases, made)

    def _made(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> list[list[_Made]]:
        """For each fact and each of its wordings: key, value and object."""
        (layer,) = self.layers_in(bench.layout)
        texts = [rows_for(bench.tokenizer, fact, paraphrases, ()).rewrites for fact in facts]
        rows = [_at_prompt_end(row) for rewrites in texts for row in rewrites]
        options = ValueOptions(self.steps, self.learning_rate, weight_decay=0.0, kl_weight=0.0, clamp=math.inf)
        values = optimise_values(bench.model, bench.layout, layer, rows, options, bench.progress)
        keys_nd = subject_keys(bench.model, bench.layout, [layer], [row.essence for row in rows])[layer]
        with evaluating(bench.model), torch.no_grad():
            values_no = bench.model.get_submodule(bench.layout.memory(layer).path)(keys_nd) + values.deltas_fo
        spoken = [fact.new_object or "" for fact, rewrites in zip(facts, texts, strict=True) for _ in rewrites]
        made = zip(keys_nd.float().cpu(), values_no.float().cpu(), spoken, strict=True)
        return [[next(made) for _ in rewrites] for rewrites in texts]

    def _codebook(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int, made: Sequence[_Made]) -> Codebook:
        (layer,) = self.layers_in(bench.layout)
        memory = bench.layout.memory(layer)
        name = memory.weight
        earlier = bench.earlier if isinstance(bench.earlier, Codebook) else None
        if earlier is not None and earlier.parameters != (name,):
            earlier = None
        entries = Entries.empty(memory.key_width, bench.layout.hidden_size) if earlier is None else earlier.entries
        for key_d, value_o, spoken in made:
            entries = entries.with_entry(key_d, value_o, spoken, self.radius * float(key_d.norm()))
        manifest = self.manifest(bench, facts, paraphrases, CodebookManifest, [name], objects=entries.objects)
        return Codebook(entries, manifest if earlier is None else manifest.continuing(earlier.manifest))


def _at_prompt_end(row: Row) -> FactRows:
    """A prompt with its target, to be edited at the prompt's last token rather than at the subject's.

    Nothing has to stay what it was (the codebook defers elsewhere), so the prompt itself stands where a text would be
    that says what the subject is.
    """
    prompt = Row(row.tokens[: -row.target], len(row.tokens) - row.target - 1, 0)
    return FactRows(((prompt,),), (Row(row.tokens, prompt.subject, row.target),), prompt)
