"""Choosing the facts of a seed among those that the model knows: some to edit, others only to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.errors import FactsError
from indelible.exam.exam import Held, check_questions, how_held
from indelible.exam.questions import own_prompts
from indelible.facts.choose import TooFewFactsError, choose_beside, choose_sets, in_turns, some_of, strata_counts
from indelible.facts.fact import Fact, entry_of
from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost, Speed, asking
from indelible.study.run.kept import FACTS, write_json
from indelible.study.run.step import Done, Job, Material, Outside, Work

# Candidates are asked this many at a time until enough are known.
ASKED_AT_ONCE = 128
# With twice the facts that are needed, the sets can be drawn without favouring what was asked first, and most
# neighbours are facts that the model knows.
KNOWN_PER_CHOSEN = 2
USUALLY_KNOWN = 0.5
"""Share of the built-in facts that a small model knows."""
NAMED = "named"
"""What ``Select.edited`` is where a file names the facts: those with a new object."""
LISTED = 5


@dataclass(frozen=True)
class Select(Work):
    """See FactsSettings for the fields.

    ``edited``: "known", "any" or NAMED; ``stratified``: intrinsic facts are drawn by how probable they are.
    """

    kind: ClassVar[str] = "select"
    version: ClassVar[int] = 5
    reads: ClassVar[tuple[Outside, ...]] = ("facts",)

    n_edits: int
    n_intrinsic: int
    redraw: bool
    held_out: int | None
    neighbours: int | None
    edited: str
    stratified: bool

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        rounds = ceil(self._goal / (USUALLY_KNOWN * ASKED_AT_ONCE))
        return asking(rounds * ASKED_AT_ONCE, speed)

    @property
    def _goal(self) -> int:
        """How many known facts are looked for."""
        return KNOWN_PER_CHOSEN * (self.n_intrinsic + (self.n_edits if self.edited == "known" else 0))

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        goal = self._goal
        candidates = material.world.candidates
        named = [fact for fact in candidates if fact.new_object is not None] if self.edited == NAMED else []
        others = [fact for fact in candidates if fact.new_object is None] if named else candidates
        waiting = in_turns(others, job.step.seed)
        held: list[Held] = []
        asked = 0
        with material.lent.base_model() as model:
            _check_named(model, material.lent.tokenizer, named)
            while True:
                batch = waiting[asked : asked + ASKED_AT_ONCE]
                held += how_held(model, material.lent.tokenizer, batch, ways=material.lent.ways)
                asked += len(batch)
                probability = {one.fact.id: one.probability for one in held if one.known}
                _tell(progress, len(probability), goal, asked, len(waiting))
                if len(probability) < goal and asked < len(waiting):
                    continue
                sizes = (self.n_edits, self.n_intrinsic)
                try:
                    edited, intrinsic = self._chosen(held, named, candidates, sizes, job.step.seed)
                    break
                except TooFewFactsError as error:
                    if asked >= len(waiting):
                        raise self._too_few(error, held, named, candidates, material.world.seeds) from None
        write_json(job.folder / FACTS, {"edited": self._as_asked(edited), "intrinsic": self._as_asked(intrinsic)})
        strata = strata_counts(probability[fact.id] for fact in intrinsic)
        record = {
            "asked": asked,
            "known": len(probability),
            "candidates": len(waiting),
            "edited_known": None if named else sum(fact.id in probability for fact in edited),  # those are not asked
            "strata": {"known": strata_counts(probability.values()), "intrinsic": strata},
        }
        drawn = ", ".join(f"{count} {name}" for name, count in strata.items())
        short = [name for name, count in strata.items() if self.stratified and count < self.n_intrinsic // len(strata)]
        lacking = f"; there are no more {', '.join(short)}" if short else ""
        return Done(f"{len(probability)} of {asked} asked are known; intrinsic probability {drawn}{lacking}", record)

    def _chosen(
        self, held: Sequence[Held], named: Sequence[Fact], pool: Sequence[Fact], sizes: tuple[int, int], seed: int
    ) -> tuple[list[Fact], list[Fact]]:
        """So many edited and intrinsic facts, by what the model was found to know."""
        known = [one.fact for one in held if one.known]
        probability = {one.fact.id: one.probability for one in held if one.known} if self.stratified else None
        n_edits, n_intrinsic = sizes
        if named:
            edited = some_of(named, n_edits, seed)
            return choose_beside(edited, known, n_intrinsic, seed, pool=pool, probability=probability)
        return choose_sets(
            known,
            n_edits,
            n_intrinsic,
            seed,
            pool=pool,
            redraw=self.redraw,
            editable=None if self.edited == "known" else [one.fact for one in held],
            probability=probability,
        )

    def _too_few(
        self,
        error: TooFewFactsError,
        held: Sequence[Held],
        named: Sequence[Fact],
        candidates: Sequence[Fact],
        seeds: Sequence[int],
    ) -> FactsError:
        """The error with numbers that fit every seed of the study, now that the model was asked all facts."""
        fits, by_id = error.fits, {one.fact.id: one for one in held}
        for seed in seeds:
            of_seed = [by_id[fact.id] for fact in in_turns(candidates, seed) if fact.id in by_id]
            try:
                self._chosen(of_seed, named, candidates, fits, seed)
            except TooFewFactsError as other:
                fits = other.fits
        if not all(fits):
            return FactsError(error.what, "Give other facts, or a model that knows more of them.")
        edits = "" if fits[0] == self.n_edits else f"facts.n_edits to {fits[0]} and "
        more = "facts.intrinsic" if named else "facts.source"
        return FactsError(
            error.what, f"Set {edits}facts.n_intrinsic to {fits[1]}, or give more facts that it knows in {more}."
        )

    def _as_asked(self, facts: Sequence[Fact]) -> list[dict[str, object]]:
        """The facts with as many held-out wordings and neighbours as are to be asked."""
        return [
            entry_of(
                replace(fact, held_out=fact.held_out[: self.held_out], neighbours=fact.neighbours[: self.neighbours])
            )
            for fact in facts
        ]


def _check_named(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, named: Sequence[Fact]) -> None:
    """Raise a FactsError that names the facts of a user's which this model cannot be asked."""
    wrong = []
    for question in own_prompts(named, "edited"):
        try:
            check_questions(model, tokenizer, [question])
        except FactsError as error:
            wrong.append(f"{question.fact_id}: {error.what.rstrip('.')}")
    if wrong:
        more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise FactsError(
            f"{len(wrong)} of {len(named)} facts cannot be asked of this model: {'; '.join(wrong[:LISTED])}{more}.",
            "Mend or remove them.",
        )


def _tell(progress: Progress, known: int, goal: int, asked: int, candidates: int) -> None:
    """The choice ends when enough are known or all are asked, whichever is nearer."""
    note = f"{known} known of {asked} asked"
    if known * candidates >= asked * goal:
        progress(min(known, goal), goal, note)
    else:
        progress(asked, candidates, note)
