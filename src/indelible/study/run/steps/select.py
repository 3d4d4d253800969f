"""Choosing the facts of a seed among those that the model knows: some to edit, others only to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

from indelible.errors import FactsError
from indelible.exam.exam import Held, how_held
from indelible.facts.choose import as_they_are, choose_sets, in_turns, strata_counts
from indelible.facts.fact import Fact, entry_of
from indelible.progress import Progress
from indelible.study.design.settings import Edited, FactsSettings
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


@dataclass(frozen=True)
class Select(Work):
    """See FactsSettings for the fields; ``stratified``: intrinsic facts are drawn by how probable they are."""

    kind: ClassVar[str] = "select"
    version: ClassVar[int] = 5
    reads: ClassVar[tuple[Outside, ...]] = ("facts",)

    n_edits: int
    n_intrinsic: int
    redraw: bool
    held_out: int | None
    neighbours: int | None
    edited: Edited
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
        waiting = in_turns(candidates, job.step.seed)
        held: list[Held] = []
        asked = 0
        with material.lent.base_model() as model:
            while True:
                batch = waiting[asked : asked + ASKED_AT_ONCE]
                held += how_held(model, material.lent.tokenizer, batch, ways=material.lent.ways)
                asked += len(batch)
                probability = {one.fact.id: one.probability for one in held if one.known}
                _tell(progress, len(probability), goal, asked, len(waiting))
                if len(probability) < goal and asked < len(waiting):
                    continue
                try:
                    edited, intrinsic = choose_sets(
                        [one.fact for one in held if one.known],
                        self.n_edits,
                        self.n_intrinsic,
                        job.step.seed,
                        pool=candidates,
                        redraw=self.redraw,
                        editable=self._editable(held, candidates),
                        probability=probability if self.stratified else None,
                    )
                    break
                except FactsError:
                    if asked >= len(waiting):
                        raise
        write_json(job.folder / FACTS, {"edited": self._as_asked(edited), "intrinsic": self._as_asked(intrinsic)})
        strata = strata_counts(probability[fact.id] for fact in intrinsic)
        record = {
            "asked": asked,
            "known": len(probability),
            "candidates": len(waiting),
            "edited_known": sum(fact.id in probability for fact in edited),
            "strata": {"known": strata_counts(probability.values()), "intrinsic": strata},
        }
        drawn = ", ".join(f"{count} {name}" for name, count in strata.items())
        short = [name for name, count in strata.items() if self.stratified and count < self.n_intrinsic // len(strata)]
        lacking = f"; there are no more {', '.join(short)}" if short else ""
        return Done(f"{len(probability)} of {asked} asked are known; intrinsic probability {drawn}{lacking}", record)

    def _editable(self, held: Sequence[Held], candidates: Sequence[Fact]) -> list[Fact] | None:
        """What edits are drawn from: known facts (None), all that were asked, or those that are given to be edited."""
        if self.edited == "own":
            return as_they_are(candidates)
        return None if self.edited == "known" else [one.fact for one in held]

    def _as_asked(self, facts: Sequence[Fact]) -> list[dict[str, object]]:
        """The facts with as many held-out wordings and neighbours as are to be asked."""
        return [
            entry_of(
                replace(fact, held_out=fact.held_out[: self.held_out], neighbours=fact.neighbours[: self.neighbours])
            )
            for fact in facts
        ]


def _tell(progress: Progress, known: int, goal: int, asked: int, candidates: int) -> None:
    """The choice ends when enough are known or all are asked, whichever is nearer."""
    note = f"{known} known of {asked} asked"
    if known * candidates >= asked * goal:
        progress(min(known, goal), goal, note)
    else:
        progress(asked, candidates, note)
