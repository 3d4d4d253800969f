"""The pilot of an advice: an ordinary study of the candidates, as large as the minutes that are given for it allow.

What a study takes is reckoned from how fast the model is on this machine (see ``study.run.cost``). Facts and training
steps grow together, since an effect shows by what training costs as much as by how many facts it is seen on; where
there are enough steps, by a second seed first.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from indelible.documents import from_yaml
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import with_suffix
from indelible.edits.editor import EDITORS
from indelible.errors import ConfigError, FactsError, UnknownNameError, suggest
from indelible.facts.choose import check_edits
from indelible.facts.fact import Fact
from indelible.models.load import load
from indelible.numbers.words import counted, duration
from indelible.study.design.arms import resolve_arms
from indelible.study.design.config import parse_config
from indelible.study.design.settings import NO_EDITOR, StudyConfig
from indelible.study.run.cost import Cost, Speed, measured_speed
from indelible.study.run.plan import make_plan
from indelible.study.run.sources import candidate_facts
from indelible.study.run.step import Versions
from indelible.study.run.store import Store
from indelible.tuning.freezing.mask import MASKS, check_mask
from indelible.tuning.objective import OBJECTIVES, tuning_settings
from indelible.tuning.own_data.data import data_task
from indelible.tuning.own_data.sources import read_rows
from indelible.tuning.protection import NONE, PROTECTIONS, protections_from
from indelible.tuning.settings import DataSettings
from indelible.tuning.task import TASKS

PLAIN, CONTROL = "plain", "control"
FEWEST, SHORTEST, GROWTH = 12, 8, 1.25
"""Edits and steps of the smallest pilot, and how many times as many the next larger one has of both."""
ENOUGH = 32
"""Steps from which a second seed comes first: with one, intervals speak of other facts alone, not of other runs."""
MOST_EDITS, MOST_STEPS, MOST_SEEDS = 96, 400, 3
"""Of the largest one; users' own data are read once at most."""
HELD_OUT = 64
"""Rows for the downstream figure; they are read, and answered, twice in every run."""

FREEZING = ("up-to-edited", "up-to-edited+replay")
"""Candidates that freeze, beside all protections, where none are named."""

Candidate = dict[str, Any]
"""The keys ``mask`` and ``protect`` of an arm, as far as it has them."""


@dataclass(frozen=True)
class Size:
    """How large a pilot is."""

    edits: int
    steps: int
    seeds: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Size:
        """That of a study's settings."""
        return cls(settings["facts"]["n_edits"], settings["tuning"]["steps"], len(settings["seeds"]))


@dataclass(frozen=True)
class Sought:
    """What advice is sought on; see ``advise`` for what is not said here.

    Attributes:
        facts: file of the facts to be edited; None for those of the delta.
        data: a file, a data set of the hub, or the name of a built-in task.
        protections: the candidates: protections as a study writes them, masks, or both joined by a +; empty for all
            protections that fit, and ``FREEZING``.
        allowed: the price that may be paid.
        settings: of the pilot's study, laid over what is chosen here, as ``tuning.learning_rate=2e-5``.
    """

    model: str
    facts: Path | None
    data: str
    objective: str
    editor: str
    delta: Path | None
    protections: tuple[str, ...]
    minutes: float
    allowed: float
    settings: tuple[str, ...] = ()
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf:
            raise ConfigError(f"{self.minutes:g} minutes are no time for a pilot.", "Give more than 0, e.g. 20.")
        if not 0 <= self.allowed < math.inf:
            raise ConfigError(f"The price {self.allowed:g} cannot be paid.", "Give a share from 0 up, e.g. 0.02.")

    def study(self, size: Size) -> StudyConfig:
        """The pilot as a study.

        Raises:
            IndelibleError: for all that can be found wrong before a model is loaded.
        """
        edited = self._edited
        few = HELD_OUT if self.examples is None else max(1, min(HELD_OUT, self.examples // 4))
        settings = {
            "name": f"advise-{self.minutes:g}-minutes",
            "model": self.model,
            "trust_remote_code": self.trust_remote_code,
            "seeds": list(range(size.seeds)),
            "facts": {**self._facts, "n_edits": size.edits, "n_intrinsic": min(max(size.edits, 24), self.others)},
            "tuning": {"objective": self.objective, "steps": size.steps, "heldout_examples": few, **self._source},
            "arms": [
                {"name": PLAIN, **edited},
                *({"name": one, **edited, **candidate} for one, candidate in self.candidates.items()),
                {"name": CONTROL, "editor": NO_EDITOR},
            ],
        }
        return self._parsed(settings)

    @cached_property
    def candidates(self) -> dict[str, Candidate]:
        """Each by its arm's name, as an arm has it.

        Raises:
            ConfigError: an unknown one; "none", which each pilot has; one that is named twice.
        """
        found: dict[str, Candidate] = {}
        for written in self.protections or filter(self._fits, [*PROTECTIONS.names(), *FREEZING]):
            name, candidate = _candidate(written)
            if not candidate or name in found:
                why = "it is named twice" if candidate else "each pilot has it"
                raise ConfigError(f"{written!r} cannot be one more candidate: {why}.", "Leave it out.")
            found[name] = candidate
        return found

    @cached_property
    def editing(self) -> tuple[str, int]:
        """The editor, and with how many paraphrases: what made the delta, where one is given.

        Raises:
            EditError: if the delta cannot be read.
            UnknownNameError: for an editor that does not exist.
        """
        if self._made is not None:
            return self._made.manifest.made[-1].editor, self._made.manifest.made[-1].paraphrases
        if self.editor not in EDITORS.names():
            raise UnknownNameError("editor", self.editor, EDITORS.names())
        return self.editor, 0

    @cached_property
    def _made(self) -> Edit | None:
        return None if self.delta is None else Edit.load(self.delta)

    @cached_property
    def editable(self) -> int:
        """How many facts can be edited together.

        Raises:
            FactsError: if the file cannot be read, or holds none with a new object, or one that is not in the delta.
        """
        own = [fact for fact in self._known_of if fact.new_object is not None]
        check_edits(own)
        if self._made is not None:
            made = {(fact.text(), fact.new_object) for fact in self._made.facts}
            if other := next((fact for fact in own if (fact.text(), fact.new_object) not in made), None):
                what = f"The fact {other.id!r} ({other.text()} {other.new_object}) was not edited by {self.delta}."
                raise FactsError(what, "Give facts that it was made of, or no facts: then it is asked for its own.")
        return len(own)

    @cached_property
    def others(self) -> int:
        """How many other facts may be asked."""
        return sum(fact.new_object is None for fact in self._known_of)

    @cached_property
    def examples(self) -> int | None:
        """Rows of the users' own data; None for a built-in task, which has no end.

        Raises:
            DataError: if the data cannot be read, or lack what the objective needs.
            UnknownNameError: for an objective that does not exist.
        """
        if self.objective not in OBJECTIVES.names():
            raise UnknownNameError("objective", self.objective, OBJECTIVES.names())
        if "task" in self._source:
            return None
        tuning = self._first(self._bare).tuning
        data = DataSettings.model_validate(tuning["data"])
        data_task(data, OBJECTIVES.get(self.objective))
        return len(read_rows(data).rows)

    def begun(self, folder: Path) -> Size | None:
        """The size of the pilot that stands in a folder, which is gone on with; None where there is none."""
        kept = Store(folder).config_dict()
        try:
            return None if kept is None else Size.of(kept)
        except (KeyError, TypeError):  # another kind of study: said when it is opened
            return None

    def sizes(self) -> list[Size]:
        """Sizes of pilots, each larger than the one before."""
        steps, tuning = MOST_STEPS, tuning_settings(self.study(Size(1, 1, 1)).tuning)
        if self.examples is not None:
            steps = max(1, (self.examples - tuning.heldout_examples) // tuning.rows_per_step)
        edits = min(MOST_EDITS, self.editable)
        size = Size(min(FEWEST, edits), min(SHORTEST, steps), 1)
        found = [size]
        while (size.edits, size.steps) != (edits, steps):
            if size.seeds == 1 and size.steps >= ENOUGH:
                found.append(size := replace(size, seeds=2))
            more = (math.ceil(size.edits * GROWTH), math.ceil(size.steps * GROWTH))
            found.append(size := replace(size, edits=min(more[0], edits), steps=min(more[1], steps)))
        return found + [replace(size, seeds=seeds) for seeds in range(size.seeds + 1, MOST_SEEDS + 1)]

    def speed(self) -> Speed:
        """How fast the model is on this machine; it is loaded for it.

        Raises:
            FingerprintError: if the delta was made for another model.
        """
        config = self.study(self.sizes()[0])
        loaded = load(self.model, trust_remote_code=self.trust_remote_code)
        if self._made is not None:
            self._made.check(loaded.model)
        tunings = [arm.tuning for arm in resolve_arms(config)]
        return measured_speed(loaded.model, loaded.tokenizer, candidate_facts(config.facts), tunings)

    def fitting(self, speed: Speed) -> Size:
        """The largest size that takes no longer than the minutes at that speed.

        Raises:
            ConfigError: if the smallest takes longer.
        """
        sizes = self.sizes()
        place = bisect_right(sizes, 60 * self.minutes, key=lambda size: self.cost(size, speed).seconds)
        if not place:
            least = self.cost(sizes[0], speed).seconds
            raise ConfigError(
                f"{self.minutes:g} minutes do not suffice: a pilot of {counted(len(self.candidates), 'candidate')} with"
                f" {sizes[0].edits} edits and {sizes[0].steps} steps takes about {duration(least)} on this machine.",
                f"Give {counted(math.ceil(least / 60), 'minute')}, or fewer candidates (--protect) than these: "
                f"{', '.join(self.candidates)}.",
            )
        return sizes[place - 1]

    def cost(self, size: Size, speed: Speed) -> Cost:
        """What a pilot of that size takes at that speed, all its steps one after another."""
        config = self.study(size)
        plan = make_plan(config, resolve_arms(config), Versions("", "", {}, "", "", ""))
        return sum((step.work.cost(config.facts, speed) for step in plan.steps), Cost())

    @cached_property
    def _known_of(self) -> list[Fact]:
        """All that a pilot chooses from."""
        return candidate_facts(self._first(self._bare).facts)

    def _fits(self, written: str) -> bool:
        """Whether a candidate works with the editor and the tuner."""
        (plain,) = self._bare["arms"]
        try:
            resolve_arms(self._first({**self._bare, "arms": [plain | _candidate(written)[1]]}))
        except ConfigError:
            return False
        return True

    @property
    def _edited(self) -> dict[str, Any]:
        """What all arms but the control have."""
        editor, paraphrases = self.editing
        given = {} if self.delta is None else {"delta": str(self.delta)}
        return {"editor": editor, "paraphrases": paraphrases, **given}

    @property
    def _facts(self) -> dict[str, Any]:
        if self.facts is None and self.delta is None:
            raise FactsError("Neither facts nor a delta is given.", "Give one of them.")
        source = self.facts or with_suffix(self.delta or Path())
        return {"edited": str(source.absolute()), "held_out": 1, "neighbours": 0}

    @property
    def _source(self) -> Mapping[str, Any]:
        task = self.data in TASKS.names() and not Path(self.data).exists()
        return {"task": self.data} if task else {"data": {"source": self.data}}

    @property
    def _bare(self) -> dict[str, Any]:
        """What can be said before facts and data are read."""
        arms = [{"name": PLAIN, **self._edited}]
        return {"name": "advise", "model": self.model, "facts": self._facts, "tuning": {**self._source}, "arms": arms}

    def _first(self, settings: Mapping[str, Any]) -> StudyConfig:
        """The pilot with what is known so far; what is set of its arms is not."""
        return self._parsed(settings, [one for one in self.settings if not one.startswith("arms.")])

    def _parsed(self, settings: Mapping[str, Any], overrides: Sequence[str] | None = None) -> StudyConfig:
        given = self.settings if overrides is None else overrides
        return parse_config(yaml.safe_dump(settings), "the pilot", Path.cwd(), given)


def _candidate(written: str) -> tuple[str, Candidate]:
    """A candidate's name and its keys out of a text: masks and protections joined by a +, or a mapping to options."""
    if written.lstrip().startswith("{"):
        protect = from_yaml(written, f"The protection {written!r}", ConfigError)
        return "+".join(map(str, protections_from(protect))), {"protect": protect}
    parts = [part for part in "".join(written.split()).split("+") if part != NONE]
    masks = [part for part in parts if part.partition(":")[0] in MASKS.names()]
    others = [part for part in parts if part not in masks]
    for name in others:
        if name not in (known := PROTECTIONS.names()):
            raise ConfigError(f"Unknown protection {name!r}, and no mask.", suggest(name, [*known, *MASKS.names()]))
    made = protections_from("+".join(others)) if others else ()
    mask = {"mask": check_mask("+".join(masks))} if masks else {}
    return "+".join([*masks, *map(str, made)]), mask | ({"protect": "+".join(others)} if others else {})
