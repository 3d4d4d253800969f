"""The part of a forward pass that changes while values are optimised, and nothing else of it.

Texts are cut at the subject's last token. What stands before it is run once, as one tree in which all texts share what
they begin with alike, and kept as an attention cache; what the layers up to the value layer return for the rest is kept
too. The suffixes from there up are run again and again by values.py, many of them side by side in a row, each of whose
tokens an attention mask lets see its own text alone: nothing is padded but what makes rows equally long.

Not every family can be read so: recurrent layers know no such masks, windows are shorter than texts, positions are
counted in many ways, layers share states. The quickest way that gives what plain passes over single whole texts give,
a change at the subject included, is found anew for each lot of texts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from indelible.edits.solving.parts import Placed, Suffixes, TextRows, lay_out, seen
from indelible.edits.solving.prefixes import Trees, added, by_slot, grouped, hardest, of_slots, packed, shared_copy
from indelible.edits.solving.texts import FactRows, Row
from indelible.errors import EditError, IndelibleError
from indelible.models.batches import in_pieces
from indelible.models.layout import Layout
from indelible.models.trace import by_row, capture, resume_from, select_before_head
from indelible.models.trace import replace as replace_output

Site = Literal["attention", "mlp"]
Reference = Literal["site", "block"]
"""Whose output a delta is measured against: that of the site it is added to, or that of the whole block."""

# What one more pass costs beside its tokens, in tokens: texts are not cut anew for less. Measured on two cores with
# SmolLM2-135M; a GPU is hardly busy with a few thousand tokens.
_PASS_TOKENS = {"cpu": 48}
_PASS_TOKENS_ELSEWHERE = 2048
# Tokens to a pass: products of so many rows are as quick as larger ones, whose activations would fill memory.
_TOKENS_AT_ONCE = {"cpu": 512}
_TOKENS_AT_ONCE_ELSEWHERE = 2**30
# Tokens side by side in a row: attention compares each with every other.
_ROW_TOKENS = 128


class _Way(NamedTuple):
    """How texts are run: on cached prefixes, from the value layer up, several at a time; or without."""

    cached: bool
    resumed: bool
    together: bool


_WAYS = (_Way(True, True, True), _Way(False, True, True), _Way(False, False, True), _Way(False, False, False))
_SAME = 1e-3
"""Log-probabilities that differ by less are the same."""


class SuffixRuns:
    """Texts of some facts with everything that no step changes, ready to be run with any deltas.

    Deltas are added to what the sites return at the subject's last token in ``layer``, the value layer. The model is in
    evaluation mode, its parameters without gradients.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        layer: int,
        sites: Sequence[Site],
        facts: Sequence[FactRows],
        reference: Reference = "block",
    ) -> None:
        self.model, self.layout, self.layer, self.sites = model, layout, layer, tuple(sites)
        self.reference, self._device, self._all = reference, model.device, range(len(facts))
        kind = model.device.type
        self.pass_tokens = _PASS_TOKENS.get(kind, _PASS_TOKENS_ELSEWHERE)
        self._at_once = _TOKENS_AT_ONCE.get(kind, _TOKENS_AT_ONCE_ELSEWHERE)
        failed: Exception | None = None
        for way in dict.fromkeys(one._replace(resumed=one.resumed and layout.resumes) for one in _WAYS):
            try:
                with torch.no_grad():
                    self._prepare(way, facts)
                    if self._as_plainly():
                        return
            except (torch.OutOfMemoryError, IndelibleError):
                raise
            except Exception as error:  # whatever a family raises that cannot be read this way
                failed = error
        raise EditError(
            f"{type(model).__name__} does not read texts as it reads each by itself"
            + (f": {failed}." if failed else ", whatever way is tried."),
            "Give a model that does; report the family.",
        )

    def _prepare(self, way: _Way, facts: Sequence[FactRows]) -> None:
        self._way = way
        self._rows = [
            Placed(fact, row, 1 / len(texts.rewrites), number == 0, row.subject if way.cached else 0)
            for fact, texts in enumerate(facts)
            for number, row in enumerate(texts.rewrites)
        ]
        for fact, texts in enumerate(facts):
            start = texts.essence.subject if way.cached else 0
            self._rows.append(Placed(fact, texts.essence, 0.0, False, start))
        # Where each text is kept among all; behind the last stands what padding is resumed from.
        self._begins = [0, *accumulate(placed.length for placed in self._rows)]
        # A change of what the MLP returns is a change of what the block returns, where no norm stands between.
        adds = self.layout.memory(self.layer).adds_to_residual
        self._from_above = self.sites == ("mlp",) and adds and way.resumed
        self._run_prefixes()
        self._run_below()

    def _as_plainly(self) -> bool:
        """Whether plain passes, changes included, read the hardest rows alike."""
        spread = torch.linspace(-1, 1, self.layout.hidden_size, device=self._device)
        deltas_fso = self.reference_fs.unsqueeze(-1) * spread / spread.norm()
        numbers = {placed.fact: placed.fact for placed in self._rows}
        asked, parts = self._hardest()
        for rows in parts:
            part = self._part(rows, numbers)
            # Once before: what changes a state in place is right the first time only.
            self.predict(part, deltas_fso)
            targets, essences = self.predict(part, deltas_fso)
            of_texts_q = torch.tensor([index for index in part.texts for _ in range(self._rows[index].row.target)])
            of_texts_e = torch.tensor([index for index in part.texts if not self._rows[index].row.target])
            for index in asked & set(part.texts):
                placed = self._rows[index]
                found = torch.cat([targets[of_texts_q == index], essences[of_texts_e == index]])
                if not bool((found - self._plainly(placed.row, deltas_fso[placed.fact])).abs().max() < _SAME):
                    return False
        return True

    def _hardest(self) -> tuple[set[int], list[TextRows]]:
        """Texts whose right reading speaks for that of all, and parts in which they are read."""
        subjects = [placed.row.subject for placed in self._rows]
        if self._way.cached:  # behind most tokens (windows) and fewest, behind another text, and in one row of two
            asked = {min(range(len(subjects)), key=subjects.__getitem__), subjects.index(max(subjects))}
            others = [index for index in range(len(self._rows)) if index not in asked]
            rows = [[*others[:1], *sorted(asked)], others[1:2]]
            return asked, [[row for row in rows if row]]
        groups = [[*chain(*part)] for part in self._cut(self._all)]
        asked = hardest(subjects, groups)
        # Beside those asked about, what they are padded for.
        padded_for = [{group[-1], max(group, key=lambda each: self._rows[each].start)} for group in groups]
        chosen = [asked & set(group) for group in groups]
        return asked, [[[index] for index in one | more] for one, more in zip(chosen, padded_for, strict=True) if one]

    def _plainly(self, row: Row, delta_so: Tensor) -> Tensor:
        """Log-probabilities where the row's targets, or the word after it, are predicted: one pass, nothing kept."""
        tokens = row.tokens[:-1] if row.target else row.tokens
        at_x = torch.tensor([0], device=self._device), torch.tensor([row.subject], device=self._device)
        with ExitStack() as stack:
            for place, site in enumerate(self.sites):
                change = _added(delta_so[place].unsqueeze(0), at_x, 1)
                stack.enter_context(replace_output(self.model, self._path(site), change))
            logits = self.model(torch.tensor([tokens], device=self._device), use_cache=False).logits[0]
        return torch.log_softmax(logits[-max(row.target, 1) :].float(), dim=-1)

    def cost(self, active: Sequence[int]) -> int:
        """Of a pass over all suffixes of these facts, in tokens."""
        return sum(
            self.pass_tokens + len(part) * max(sum(self._rows[index].length for index in row) for row in part)
            for part in self._cut(active)
        )

    def parts(self, active: Sequence[int]) -> list[Suffixes]:
        """The suffixes of these facts, numbered as given, in parts of like length."""
        number = {fact: place for place, fact in enumerate(active)}
        return [self._part(part, number) for part in self._cut(active)]

    def predict(self, suffixes: Suffixes, deltas_aso: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities over the vocabulary where targets, and where the words after essences, are predicted.

        ``deltas_aso`` holds for each active fact and site what is added at the subject's last token.
        """
        layout, model = self.layout, self.model
        rows = torch.cat([suffixes.rows_q, suffixes.rows_e])
        places = torch.cat([suffixes.places_q, suffixes.places_e])
        deltas_xso, at_x = deltas_aso[suffixes.facts_x], (suffixes.rows_x, suffixes.subjects_x)
        with ExitStack() as stack:
            start, states_rsh = self.layer, suffixes.states_rsh
            if self._from_above:
                assert states_rsh is not None
                start += 1
                states_rsh = _with_added(states_rsh, deltas_xso[:, 0], at_x)
            else:
                for place, site in enumerate(self.sites):
                    change = _added(deltas_xso[:, place], at_x, len(suffixes.tokens_rs))
                    stack.enter_context(replace_output(model, self._path(site), change))
            if states_rsh is not None:
                as_tuple = layout.blocks_return_tuple
                stack.enter_context(resume_from(model, layout.blocks, start, states_rsh, as_tuple=as_tuple))
            stack.enter_context(select_before_head(model.get_submodule(layout.head), rows, places))
            log_probs = torch.log_softmax(self._logits(suffixes)[0].float(), dim=-1)
        targets = len(suffixes.targets_q)
        return log_probs[:targets], log_probs[targets:]

    def _logits(self, suffixes: Suffixes) -> Tensor:
        options: dict[str, Any] = {"attention_mask": suffixes.mask, "use_cache": suffixes.cache is not None}
        if suffixes.cache is not None:
            options["past_key_values"] = shared_copy(suffixes.cache)
        logits: Tensor = self.model(suffixes.tokens_rs, **self._accepted(options, suffixes.positions_rs)).logits
        return logits

    def _accepted(self, options: dict[str, Any], positions: Tensor) -> dict[str, Any]:
        """Of cached texts add positions where the family takes them."""
        if self._way.cached and "position_ids" in inspect.signature(self.model.forward).parameters:
            return {**options, "position_ids": positions}
        return options

    def _run_prefixes(self) -> None:
        """Run all prefixes once."""
        self._cache: Any = None
        self._slots: dict[tuple[int, ...], list[int]] = {(): []}
        trees = Trees.of((placed.prefix for placed in self._rows), _ROW_TOKENS)
        if trees is None:
            return
        self._slots = trees.slots
        first = torch.zeros(1, dtype=torch.long, device=self._device)
        with select_before_head(self.model.get_submodule(self.layout.head), first, first):  # no one asks what follows
            mask, positions = (
                added(trees.sees_rtt.to(self._device), self.model.dtype),
                trees.positions_rt.to(self._device),
            )
            options = {"attention_mask": mask, "use_cache": True, "past_key_values": DynamicCache()}
            found = self.model(trees.tokens_rt.to(self._device), **self._accepted(options, positions)).past_key_values
        self._cache = by_slot(found)

    def _run_below(self) -> None:
        """Run the suffixes up to the value layer once; keep what is resumed from, and the norm at each subject."""
        blocks = self.layout.blocks
        block, below = blocks[self.layer], blocks[self.layer - 1] if self.layer else None
        self._kept_nh: Tensor | None = None
        kept_nh = torch.zeros(self._begins[-1] + 1, self.layout.hidden_size, device=self._device)
        measured = [block] * len(self.sites) if self.reference == "block" else [self._path(site) for site in self.sites]
        norms_xs = torch.zeros(len(self._rows), len(measured), device=self._device)
        wanted = {block, *measured} if below is None else {block, below, *measured}
        numbers = {placed.fact: placed.fact for placed in self._rows}
        for rows in self._cut(self._all):
            part = self._part(rows, numbers)
            with capture(self.model, outputs_of=sorted(wanted), stop_after=block, copies=True) as seen:
                self._logits(part)
            for place, path in enumerate(measured):
                output_rsh = by_row(seen.outputs[path], len(rows))
                norms_xs[part.texts, place] = output_rsh[part.rows_x, part.subjects_x].norm(dim=-1)
            kept_nh[part.kept_rs] = by_row(seen.outputs[block if self._from_above else below or block], len(rows))
        if self._way.resumed and (self._from_above or below is not None):
            self._kept_nh = kept_nh
        bare = {placed.fact: index for index, placed in enumerate(self._rows) if placed.bare}
        self.reference_fs = norms_xs[[bare[fact] for fact in sorted(bare)]]
        """Norm of the reference's output at each fact's bare subject, which each site's delta is measured against."""

    def _path(self, site: Site) -> str:
        return self.layout.attention[self.layer] if site == "attention" else self.layout.memory(self.layer).path

    def _cut(self, active: Sequence[int]) -> list[TextRows]:
        """Texts of these facts in parts, each some rows of texts, so that padding and passes together cost least."""
        chosen = set(active)
        indices = [index for index, placed in enumerate(self._rows) if placed.fact in chosen]
        if not self._way.together:
            return [[[index]] for index in indices]
        if not self._way.cached:
            ordered = sorted(indices, key=lambda index: self._rows[index].length)
            groups = grouped([self._rows[index].length for index in ordered], self.pass_tokens)
            return [[[ordered[place]] for place in group] for group in groups]
        ordered = sorted(indices, key=lambda index: self._rows[index].prefix)
        rows = [
            [ordered[place] for place in row]
            for row in packed([self._rows[index].length for index in ordered], _ROW_TOKENS)
        ]
        widest = max(sum(self._rows[index].length for index in row) for row in rows)
        passes = math.ceil(len(rows) * widest / self._at_once)
        return in_pieces(rows, math.ceil(len(rows) / passes))

    def _part(self, rows: TextRows, numbers: dict[int, int]) -> Suffixes:
        """The suffixes of some texts in rows of one batch; nothing is run."""
        part = lay_out(self._rows, rows, self._begins, numbers, self._device)
        if self._kept_nh is not None:
            part = replace(part, states_rsh=self._kept_nh[part.kept_rs])
        if self._way.cached:
            slots_rp, sees = seen(self._rows, rows, self._slots)
            part = replace(part, mask=added(sees.to(self._device), self.model.dtype))
            if slots_rp.shape[1]:
                part = replace(part, cache=of_slots(self._cache, slots_rp.to(self._device)))
        return part


Places = tuple[Tensor, Tensor]
"""Rows, and positions in them."""


def _with_added(states_rsh: Tensor, delta_xh: Tensor, at_x: Places) -> Tensor:
    """States with something added at some places."""
    return states_rsh.index_put(at_x, states_rsh[at_x] + delta_xh)


def _added(delta_xh: Tensor, at_x: Places, rows: int) -> Any:
    def add(output: Tensor) -> Tensor:
        return _with_added(by_row(output, rows), delta_xh, at_x).view_as(output)

    return add
