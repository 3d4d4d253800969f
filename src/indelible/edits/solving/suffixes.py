"""The part of a forward pass that changes while values are optimised, and nothing else of it.

Texts are cut at the subject's last token. What stands before it is run once for all texts that begin alike, and kept as
an attention cache; what the layers up to the value layer return for the rest is kept too. The suffixes from there up
are run again and again by values.py: in parts of like length, cut anew whenever facts have left.

Not every family can be read so: caches of recurrent layers or short windows cannot be cut and joined, positions are
counted in many ways, layers share states. The quickest way that gives what plain passes over single whole texts give,
a change at the subject included, is found anew for each lot of texts.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.solving.prefixes import cache_rows, grouped, hardest, joined, shared_copy
from indelible.edits.solving.texts import FactRows, Row
from indelible.errors import EditError, IndelibleError
from indelible.models.batches import padded
from indelible.models.layout import Layout
from indelible.models.trace import by_row, capture, resume_from, select_before_head
from indelible.models.trace import replace as replace_output

Site = Literal["attention", "mlp"]
Reference = Literal["site", "block"]
"""Whose output a delta is measured against: that of the site it is added to, or that of the whole block."""

# What one more pass costs beside its tokens, in tokens: texts of unlike length share a pass when padding costs less.
# Measured on two cores with SmolLM2-135M; a GPU is hardly busy with a few thousand tokens.
_PASS_TOKENS = {"cpu": 48}
_PASS_TOKENS_ELSEWHERE = 2048


class _Way(NamedTuple):
    """How texts are run: on cached prefixes, from the value layer up, several at a time; or without."""

    cached: bool
    resumed: bool
    together: bool


_WAYS = (_Way(True, True, True), _Way(False, True, True), _Way(False, False, True), _Way(False, False, False))
_SAME = 1e-3
"""Log-probabilities that differ by less are the same."""


@dataclass(frozen=True)
class Suffixes:
    """What is left to compute each step: texts from the subject's last token on, or whole where nothing is cached.

    ``r`` rows, ``s`` suffix positions (padded on the right), ``k`` those and the prefix positions (padded on the left),
    ``q`` places where a target token is predicted, ``e`` places where the word after an essence is.
    """

    tokens_rs: Tensor
    mask_rk: Tensor  # over prefix and suffix keys
    positions_rs: Tensor
    facts_r: Tensor
    subjects_r: Tensor  # position of the subject's last token among those of the suffix
    cache: Any  # of the prefixes; None where no text has any
    states_rsh: Tensor | None  # what is resumed from; None where nothing lies below
    target_rows_q: Tensor
    target_places_q: Tensor
    targets_q: Tensor
    target_share_q: Tensor  # weight of each target token in its fact's loss
    essence_rows_e: Tensor
    essence_places_e: Tensor


@dataclass(frozen=True)
class _Placed:
    """A text with the fact it belongs to, its weight in that fact's loss, and whether it is the fact's bare prompt."""

    fact: int
    row: Row
    weight: float
    bare: bool
    start: int
    """Where its suffix begins: at the subject's last token, or at 0."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens before the suffix."""
        return self.row.tokens[: self.start]

    @property
    def read(self) -> tuple[int, ...]:
        """The suffix; the last target token is predicted, never read."""
        return self.row.tokens[self.start : -1 if self.row.target else None]

    @property
    def length(self) -> int:
        """Of the suffix."""
        return len(self.read)


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
        self.pass_tokens = _PASS_TOKENS.get(model.device.type, _PASS_TOKENS_ELSEWHERE)
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
            _Placed(fact, row, 1 / len(texts.rewrites), number == 0, row.subject if way.cached else 0)
            for fact, texts in enumerate(facts)
            for number, row in enumerate(texts.rewrites)
        ]
        for fact, texts in enumerate(facts):
            start = texts.essence.subject if way.cached else 0
            self._rows.append(_Placed(fact, texts.essence, 0.0, False, start))
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
        groups = self._cut(self._all)
        asked = hardest([placed.row.subject for placed in self._rows], groups)
        for group in (one for one in groups if asked & set(one)):
            # Beside those asked about, what they are padded for.
            group = [*{*asked & set(group), group[-1], max(group, key=lambda each: self._rows[each].start)}]
            part = self._part(group, numbers)
            # Once before: what changes a state in place is right the first time only.
            self.predict(part, deltas_fso)
            targets, essences = self.predict(part, deltas_fso)
            for place in (group.index(index) for index in asked & set(group)):
                row = self._rows[group[place]].row
                found = torch.cat([targets[part.target_rows_q == place], essences[part.essence_rows_e == place]])
                expected = self._plainly(row, deltas_fso[self._rows[group[place]].fact])
                if not bool((found - expected).abs().max() < _SAME):
                    return False
        return True

    def _plainly(self, row: Row, delta_so: Tensor) -> Tensor:
        """Log-probabilities where the row's targets, or the word after it, are predicted: one pass, nothing kept."""
        tokens = row.tokens[:-1] if row.target else row.tokens
        subject = torch.tensor([row.subject], device=self._device)
        with ExitStack() as stack:
            for place, site in enumerate(self.sites):
                change = _added(delta_so[place].unsqueeze(0), subject)
                stack.enter_context(replace_output(self.model, self._path(site), change))
            logits = self.model(torch.tensor([tokens], device=self._device), use_cache=False).logits[0]
        return torch.log_softmax(logits[-max(row.target, 1) :].float(), dim=-1)

    def cost(self, active: Sequence[int]) -> int:
        """Of a pass over all suffixes of these facts, in tokens."""
        return sum(self.pass_tokens + len(part) * self._rows[part[-1]].length for part in self._cut(active))

    def parts(self, active: Sequence[int]) -> list[Suffixes]:
        """The suffixes of these facts, numbered as given, in parts of like length."""
        number = {fact: place for place, fact in enumerate(active)}
        return [self._part(part, number) for part in self._cut(active)]

    def predict(self, suffixes: Suffixes, deltas_aso: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities over the vocabulary where targets, and where the words after essences, are predicted.

        ``deltas_aso`` holds for each active fact and site what is added at the subject's last token.
        """
        layout, model = self.layout, self.model
        rows = torch.cat([suffixes.target_rows_q, suffixes.essence_rows_e])
        places = torch.cat([suffixes.target_places_q, suffixes.essence_places_e])
        deltas_rso = deltas_aso[suffixes.facts_r]
        with ExitStack() as stack:
            start, states_rsh = self.layer, suffixes.states_rsh
            if self._from_above:
                assert states_rsh is not None
                start += 1
                states_rsh = _with_added(states_rsh, deltas_rso[:, 0], suffixes.subjects_r)
            else:
                for place, site in enumerate(self.sites):
                    change = _added(deltas_rso[:, place], suffixes.subjects_r)
                    stack.enter_context(replace_output(model, self._path(site), change))
            if states_rsh is not None:
                as_tuple = layout.blocks_return_tuple
                stack.enter_context(resume_from(model, layout.blocks, start, states_rsh, as_tuple=as_tuple))
            stack.enter_context(select_before_head(model.get_submodule(layout.head), rows, places))
            log_probs = torch.log_softmax(self._logits(suffixes)[0].float(), dim=-1)
        targets = len(suffixes.targets_q)
        return log_probs[:targets], log_probs[targets:]

    def _logits(self, suffixes: Suffixes) -> Tensor:
        options: dict[str, Any] = {"attention_mask": suffixes.mask_rk, "use_cache": suffixes.cache is not None}
        if suffixes.cache is not None:
            options["past_key_values"] = shared_copy(suffixes.cache)
        logits: Tensor = self.model(suffixes.tokens_rs, **self._accepted(options, suffixes.positions_rs)).logits
        return logits

    def _accepted(self, options: dict[str, Any], positions: Tensor) -> dict[str, Any]:
        """Of cached texts add positions where the family takes them; the others (ALiBi) read them off the mask."""
        if self._way.cached and "position_ids" in inspect.signature(self.model.forward).parameters:
            return {**options, "position_ids": positions}
        return options

    def _run_prefixes(self) -> None:
        """Run each distinct prefix once, those of like length together."""
        distinct = sorted({placed.prefix for placed in self._rows}, key=len)
        self._prefix_length = len(distinct[-1])
        number = {prefix: place for place, prefix in enumerate(distinct)}
        self._prefix_of = [number[placed.prefix] for placed in self._rows]
        self._cache: Any = None
        if self._prefix_length == 0:
            return
        caches = []
        for group in grouped([max(len(prefix), 1) for prefix in distinct], self.pass_tokens):
            tokens, mask = padded([distinct[index] or (0,) for index in group], side="left")
            if not distinct[group[0]]:
                mask[0] = 0  # the empty prefix is padding
            mask, positions = mask.to(self._device), (mask.cumsum(1) - 1).clamp_min(0).to(self._device)
            head = self.model.get_submodule(self.layout.head)
            first = torch.zeros(1, dtype=torch.long, device=self._device)
            with select_before_head(head, first, first):  # no one asks what follows a prefix
                options = self._accepted({"attention_mask": mask, "use_cache": True}, positions)
                caches.append(self.model(tokens.to(self._device), **options).past_key_values)
        self._cache = joined(caches, self._prefix_length)

    def _run_below(self) -> None:
        """Run the suffixes up to the value layer once; keep what is resumed from, and the norm at each subject."""
        blocks = self.layout.blocks
        block, below = blocks[self.layer], blocks[self.layer - 1] if self.layer else None
        width = max(placed.length for placed in self._rows)
        kept = torch.zeros(len(self._rows), width, self.layout.hidden_size, device=self._device)
        measured = [block] * len(self.sites) if self.reference == "block" else [self._path(site) for site in self.sites]
        norms_rs = torch.zeros(len(self._rows), len(measured), device=self._device)
        self._states: Tensor | None = kept if self._way.resumed and (self._from_above or below is not None) else None
        wanted = {block, *measured} if below is None else {block, below, *measured}
        numbers = {placed.fact: placed.fact for placed in self._rows}
        for group in self._cut(self._all):
            part = self._part(group, numbers, with_states=False)
            with capture(self.model, outputs_of=sorted(wanted), stop_after=block, copies=True) as seen:
                self._logits(part)
            above_rsh = by_row(seen.outputs[block], len(group))
            for place, path in enumerate(measured):
                at_subject = by_row(seen.outputs[path], len(group))[range(len(group)), part.subjects_r]
                norms_rs[group, place] = at_subject.norm(dim=-1)
            if self._states is not None:
                states = above_rsh if self._from_above else by_row(seen.outputs[below or block], len(group))
                kept[group, : states.shape[1]] = states
        bare = {placed.fact: index for index, placed in enumerate(self._rows) if placed.bare}
        self.reference_fs = norms_rs[[bare[fact] for fact in sorted(bare)]]
        """Norm of the reference's output at each fact's bare subject, which each site's delta is measured against."""

    def _path(self, site: Site) -> str:
        return self.layout.attention[self.layer] if site == "attention" else self.layout.memory(self.layer).path

    def _cut(self, active: Sequence[int]) -> list[list[int]]:
        """Texts of these facts in parts of like length, so that padding and passes together cost least."""
        chosen = set(active)
        indices = [index for index, placed in enumerate(self._rows) if placed.fact in chosen]
        if not self._way.together:
            return [[index] for index in indices]
        ordered = sorted(indices, key=lambda index: self._rows[index].length)
        groups = grouped([self._rows[index].length for index in ordered], self.pass_tokens)
        return [[ordered[place] for place in group] for group in groups]

    def _part(self, indices: Sequence[int], number: dict[int, int], *, with_states: bool = True) -> Suffixes:
        """Lay the suffixes of some texts out in one batch; nothing is run."""
        rows = [self._rows[index] for index in indices]
        device = self._device
        _, before = padded([placed.prefix for placed in rows], side="left")
        tokens, after = padded([placed.read for placed in rows])
        prefix = before.shape[1]
        positions = torch.tensor([[placed.start] for placed in rows]) + torch.arange(tokens.shape[1])
        asked = [(place, placed, placed.row.target) for place, placed in enumerate(rows) if placed.row.target]
        essences = [place for place, placed in enumerate(rows) if not placed.row.target]
        shares = [placed.weight / target for _, placed, target in asked for _ in range(target)]

        def whole(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        chosen = whole(indices)
        states = self._states[chosen, : tokens.shape[1]] if with_states and self._states is not None else None
        before_r = whole([self._prefix_of[index] for index in indices])
        cache = cache_rows(self._cache, before_r, prefix) if prefix else None
        return Suffixes(
            tokens_rs=tokens.to(device),
            mask_rk=torch.cat([before, after], dim=1).to(device),
            positions_rs=positions.to(device),
            facts_r=whole([number[placed.fact] for placed in rows]),
            subjects_r=whole([placed.row.subject - placed.start for placed in rows]),
            cache=cache,
            states_rsh=states,
            target_rows_q=whole([place for place, _, target in asked for _ in range(target)]),
            target_places_q=whole(
                [at for _, placed, target in asked for at in range(placed.length - target, placed.length)]
            ),
            targets_q=whole([token for _, placed, target in asked for token in placed.row.tokens[-target:]]),
            target_share_q=torch.tensor(shares, device=device),
            essence_rows_e=whole(essences),
            essence_places_e=whole([rows[place].length - 1 for place in essences]),
        )


def _with_added(states_rsh: Tensor, delta_rh: Tensor, places_r: Tensor) -> Tensor:
    """States with something added at one position of each row."""
    rows_r = torch.arange(len(places_r), device=places_r.device)
    return states_rsh.index_put((rows_r, places_r), states_rsh[rows_r, places_r] + delta_rh)


def _added(delta_rh: Tensor, places_r: Tensor) -> Any:
    def add(output: Tensor) -> Tensor:
        return _with_added(by_row(output, len(delta_rh)), delta_rh, places_r).view_as(output)

    return add
