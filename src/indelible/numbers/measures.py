"""The vocabulary of the whole project: phases, sets of facts, factors, and every figure that is formed of answers.

- *success*: the criterion holds; by default, greedy free generation starts with the whole target.
- *phases*: base (before the edit), edited (after it), tuned (after fine-tuning).
- *retention* of a set = successes in *tuned* among those that succeeded in *edited* (for intrinsic facts: also among
  those that succeeded in *edited*, and separately against *base*, so that damage by the edit is not blamed on tuning).
- *edit flip ratio* = 1 − retention. *retention gap* = intrinsic retention − edited retention; reports show it the other
  way round, as the *lead* of edits, so that more is better. *damage* = intrinsic facts of base that edited has lost.
- *matched gap*, or gap at equal start: the same between edits and intrinsic facts that are matched on relation and on
  probability in *edited*.
- *extra loss of edits at equal start*, the primary estimand: by how many nats of log-odds more tuning takes from edits
  than from intrinsic facts that the edited model held as firmly, in own and held-out wordings (`alike.adjusting`).
  Rates are headroom and durability in one: what is held firmly can lose much and still succeed. This is durability.
- *durability*: the mean share kept over held-out figures that all arms of a family reached (`alike.durability`): what
  was kept at equal utility, where retention at the end is at whatever utility an arm came to.
- *control*: the unedited model fine-tuned alike, so that forgetting without any edit is known. It has no edited phase,
  so that what it knew before tuning is what it knew in base.

A measure is one entry of `MEASURES`, here or in a plug-in (entry-point group ``indelible.measures``); summary, tables,
figures, claims and report go by what it says of itself. Nothing heavy is imported here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from indelible.errors import DataError
from indelible.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

FactSet = Literal["edited", "intrinsic"]
FACT_SETS: tuple[FactSet, ...] = get_args(FactSet)
Phase = Literal["base", "edited", "tuned"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""The moments at which all questions are asked; rows of the phase "tuning" are points of a curve."""
Moment = Literal["base", "edited", "before", "tuned"]
"""A phase, or "before": the one before tuning, which is edited, and base in the control."""
Factor = Literal["editor", "paraphrases", "objective", "tuner", "mask", "protect"]
FACTORS: tuple[Factor, ...] = get_args(Factor)
"""What an arm is called by."""
CONTROL_EDITOR = "none"
QUESTION = ["seed", "copy", "fact_set", "fact_id", "kind", "wording"]
"""What tells one question of an arm from another; ``copy`` numbers the models of an isolated arm, else it is 0."""

FURTHER: Mapping[str, str] = MappingProxyType(
    {
        "chat": "asked in chat",
        "reversal": "reversed",
        "negation": "negated",
        "two-choice": "told from its rival",
        "consequence": "one hop further",
        "old-object": "old object out of reach",
    }
)
"""Kinds of questions that are asked only where a study names them, and what a table calls them (see exam.kinds)."""
Place = Literal["summary", "headline", "kept", "sizes", "curves", "effects", "changes", "claims", "further"]
"""Where a measure can show: in summary.json; in the table of all arms that opens the report; in the table that sets
beside the primary estimand what else can be said to be kept; in the table of further rates; as a curve over training
steps (and with its interval in retention.csv); in effects.csv, by itself and as a difference between arms; in the
comparison of two runs; as the estimate of a claim; and, by phase, in the table of further kinds of questions."""
RateKey = tuple[str, ...]
"""Name of an arm and of a rate or a loss; and of another arm, for what is formed of two."""
Unit = Literal["share", "nats"]
SMALLEST: Mapping[Unit, float] = MappingProxyType({"share": 0.05, "nats": 0.2})
"""The smallest effect that counts where nothing else is said: five points; and as many nats as change a probability by
at most five points, which they do near one half."""


@dataclass(frozen=True)
class Measure(ABC):
    """A figure that each arm has.

    Attributes:
        name: its key in tables.
        label: what a table of text calls it.
        heading: the same as the heading of a narrow column; the label, if empty.
        shows: where it stands.
        differences: whether it is a difference, in points and tested against zero, rather than a share of something.
        constant: added to the weighted sum of rates that the measure is.
        unit: what it is counted in, shares of questions or nats of log-odds.
    """

    name: str
    label: str
    heading: str = field(default="", kw_only=True)
    shows: tuple[Place, ...] = field(default=("summary", "sizes", "effects", "claims"), kw_only=True)
    differences: bool = field(default=False, kw_only=True)
    constant: float = field(default=0.0, kw_only=True)
    unit: Unit = field(default="share", kw_only=True)

    @abstractmethod
    def of(self, arm: str, sign: float = 1.0) -> dict[RateKey, float]:
        """The weighted sum of rates that the measure is in one arm, times ``sign``."""

    def between(self, arm: str, other: str, sign: float = 1.0) -> dict[RateKey, float]:
        """The weighted sum of rates that one arm has more of it than another, times ``sign``."""
        return self.of(arm, sign) | self.of(other, -sign)


@dataclass(frozen=True)
class Rate(Measure):
    """Hits over questions asked, pooled over facts and seeds.

    Attributes:
        fact_set: neighbours belong to the edited set.
        kind: of question: "prompt", "paraphrase" (held-out wordings), "neighbour" or a further one (see FURTHER).
        hit: the moment at which the criterion must hold for a question to be a hit.
        among: only questions that met the criterion at this moment are asked about; None for all.
        criterion: the column that says whether an answer counts.
        matched: whether the edits that have a match are asked about, and the intrinsic facts by how many edits they are
            matched with (see ``matching``).
        series: the name of its curve, where that is another than the rate's.
    """

    fact_set: FactSet
    kind: str
    hit: Moment
    among: Moment | None = None
    criterion: str = "success"
    matched: bool = False
    series: str = ""

    def of(self, arm: str, sign: float = 1.0) -> dict[RateKey, float]:
        """The rate itself."""
        return {(arm, self.name): sign}

    def asks(self, outcome: pd.DataFrame) -> pd.Series:
        """Which questions of `answers.outcomes` the rate is about and have been answered."""
        levels = outcome.index
        of_set = levels.get_level_values("fact_set") == self.fact_set
        of_kind = levels.get_level_values("kind") == self.kind
        return outcome[self.hit].notna() & of_set & of_kind

    def applies(self, control: bool) -> bool:
        """Whether an arm has the rate: in a control nothing is edited, and so nothing matched with an edit."""
        return not control or (self.fact_set == "intrinsic" and not self.matched)


@dataclass(frozen=True)
class Combination(Measure):
    """A weighted sum of rates, e.g. a gap; weights by the rates' names."""

    weights: Mapping[str, float] = field(hash=False)

    def of(self, arm: str, sign: float = 1.0) -> dict[RateKey, float]:
        """The weights of the arm's rates."""
        return {(arm, name): sign * weight for name, weight in self.weights.items()}


@dataclass(frozen=True)
class Durability(Measure):
    """The mean share kept, over the held-out figures that the arm's family reached in common (`alike.durability`): from
    0 to 1, where nothing was lost on the way; a rate whose hits are fractions. No control has it.

    Attributes:
        kept: the rate of which it is the mean; among what succeeded before tuning.
    """

    kept: str

    def of(self, arm: str, sign: float = 1.0) -> dict[RateKey, float]:
        """Itself."""
        return {(arm, self.name): sign}


@dataclass(frozen=True)
class Loss(Measure):
    """By how many nats tuning lowered the log-odds of a set's questions, own and held-out wordings (`alike`).

    Attributes:
        fact_set: the set that loses.
        against: the set of the same arm than which it loses more at equal start; or "arm": the same set in another arm,
            so that the measure is one of two arms; or None: the mean loss, of whatever start.
    """

    fact_set: FactSet
    against: FactSet | Literal["arm"] | None = None
    unit: Unit = field(default="nats", kw_only=True)

    def of(self, arm: str, sign: float = 1.0) -> dict[RateKey, float]:
        """Itself; nothing where it takes two arms."""
        return {} if self.against == "arm" else {(arm, self.name): sign}

    def between(self, arm: str, other: str, sign: float = 1.0) -> dict[RateKey, float]:
        """Formed of both arms at once where it takes two."""
        return {(arm, self.name, other): sign} if self.against == "arm" else super().between(arm, other, sign)


MEASURES: Registry[Measure] = Registry("measure", group="indelible.measures")


def add(measure: Measure) -> Measure:
    """File a measure under its name."""
    return MEASURES.register(measure.name)(measure)


def measures(place: Place) -> list[Measure]:
    """What shows in a place, in the order in which measures were added."""
    return [measure for measure in MEASURES.values() if place in measure.shows]


def rates(place: Place | None = None) -> list[Rate]:
    """All rates, or those that show in a place."""
    found = [measure for measure in MEASURES.values() if isinstance(measure, Rate)]
    return [rate for rate in found if place is None or place in rate.shows]


def rate_named(name: str) -> Rate:
    """A rate, or the one that a durability is the mean of; a TypeError for a measure that is neither."""
    found = MEASURES.get(name)
    if isinstance(found, Durability):
        found = MEASURES.get(found.kept)
    if not isinstance(found, Rate):
        raise TypeError(f"{name} is no rate")
    return found


def require_columns(frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Check that a table has the columns that are about to be read; a DataError names the missing ones."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(
            f"The {what} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}.",
            "Was it written by another version, or cut by hand? Run the study again.",
        )


def is_control(rows: pd.DataFrame) -> bool:
    """Whether one arm's rows are those of the control: no editor touched its model."""
    return not rows.empty and bool((rows["editor"] == CONTROL_EDITOR).all())


_AT_THE_EDIT: tuple[Place, ...] = ("summary", "headline", "changes")
_KEPT: tuple[Place, ...] = ("summary", "headline", "kept", "curves", "effects", "changes", "claims")
_KEPT_OTHERWISE: tuple[Place, ...] = ("summary", "kept", "curves", "effects", "changes", "claims")
_DURABLE: tuple[Place, ...] = ("summary", "kept", "effects", "changes", "claims")
_GAPS: tuple[Place, ...] = ("effects", "claims")
_LOST: tuple[Place, ...] = ("sizes", "effects")

# fmt: off
for _measure in (
    Rate("edit_success", "edit success", "edited", "prompt", "edited", shows=_AT_THE_EDIT),
    Rate("edit_success_first_token", "edit success, first token", "edited", "prompt", "edited",
         criterion="first_token", heading="first token", shows=("summary", "headline")),
    Rate("paraphrase_success", "paraphrase success", "edited", "paraphrase", "edited",
         heading="paraphrases", shows=_AT_THE_EDIT),
    Rate("locality", "locality", "edited", "neighbour", "edited", "base", shows=_AT_THE_EDIT),
    Rate("intrinsic_intact", "intrinsic facts that the edit left", "intrinsic", "prompt", "edited", "base", shows=()),
    Combination("damage", "intrinsic facts lost to the edit", {"intrinsic_intact": -1.0}, constant=1.0,
                heading="lost to the edit", shows=_AT_THE_EDIT),
    Loss("excess_loss", "extra loss of edits at equal start", "edited", "intrinsic", differences=True,
         heading="extra loss of edits", shows=("summary", "headline", "kept", "changes", *_GAPS)),
    Combination("matched_gap", "gap at equal start", {"matched_intrinsic": 1.0, "matched_edited": -1.0},
                differences=True, shows=_GAPS),
    Rate("retention_edited", "edited kept", "edited", "prompt", "tuned", "before", series="edited", shows=_KEPT),
    Combination("flip_ratio", "flip ratio", {"retention_edited": -1.0}, constant=1.0, shows=("effects",)),
    Rate("retention_intrinsic", "intrinsic kept", "intrinsic", "prompt", "tuned", "before",
         series="intrinsic", shows=_KEPT),
    Combination("lead", "edits kept \N{MINUS SIGN} intrinsic kept",
                {"retention_edited": 1.0, "retention_intrinsic": -1.0}, differences=True,
                heading="edits \N{MINUS SIGN} intrinsic", shows=("summary", "headline", "effects", "changes")),
    Combination("gap", "gap", {"retention_intrinsic": 1.0, "retention_edited": -1.0},
                differences=True, shows=("summary", *_GAPS)),
    Rate("retention_paraphrase", "edited kept, held-out wordings", "edited", "paraphrase", "tuned", "before",
         series="paraphrase", shows=_KEPT_OTHERWISE),
    Rate("retention_intrinsic_paraphrase", "intrinsic kept, held-out wordings", "intrinsic", "paraphrase", "tuned",
         "before", shows=("summary", "kept", "effects", "claims")),
    Combination("gap_paraphrase", "gap, held-out wordings",
                {"retention_intrinsic_paraphrase": 1.0, "retention_paraphrase": -1.0},
                differences=True, shows=_GAPS),
    Rate("retention_intrinsic_base", "intrinsic kept, against base", "intrinsic", "prompt", "tuned", "base",
         shows=("summary", "kept", "effects", "claims")),
    Combination("gap_base", "gap, against base", {"retention_intrinsic_base": 1.0, "retention_edited": -1.0},
                differences=True, shows=_GAPS),
    Rate("retention_edited_first_token", "edited kept, first token", "edited", "prompt", "tuned", "before",
         criterion="first_token", shows=("summary", "sizes", "claims")),
    Rate("retention_neighbour", "neighbours kept", "edited", "neighbour", "tuned", "before",
         shows=("summary", "effects")),
    Rate("matched_edited", "edited kept, matched", "edited", "prompt", "tuned", "before", matched=True, shows=()),
    Rate("matched_intrinsic", "intrinsic kept, matched", "intrinsic", "prompt", "tuned", "before",
         matched=True, shows=()),
    Durability("durability", "durability of edits", "retention_edited", shows=_DURABLE),
    Durability("durability_paraphrase", "durability of edits, held-out wordings", "retention_paraphrase",
               shows=("summary", "effects", "claims")),
    Durability("durability_intrinsic", "durability of intrinsic facts", "retention_intrinsic",
               shows=("summary", "effects", "claims")),
    Combination("durability_gap", "gap in durability", {"durability_intrinsic": 1.0, "durability": -1.0},
                differences=True, shows=("effects", "claims")),
    Loss("edits_loss", "loss of edits", "edited", shows=_LOST),
    Loss("intrinsic_loss", "loss of intrinsic facts", "intrinsic", shows=_LOST),
    Loss("edits_loss_equal", "loss of edits at equal start", "edited", "arm", shows=("effects", "claims")),
):
    add(_measure)
# fmt: on
for _kind, _words in FURTHER.items():
    for _set in FACT_SETS:
        _name = f"{_kind.replace('-', '_')}_{_set}"
        add(Rate(_name, f"{_set}, {_words}", _set, _kind, "before", shows=("further", "effects", "claims")))
        add(
            Rate(f"{_name}_kept", f"{_set} kept, {_words}", _set, _kind, "tuned", "before", shows=("effects", "claims"))
        )
