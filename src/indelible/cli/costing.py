"""What a long command takes, said before it begins: what it asks and edits, by how fast the model is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.terminal import say
from indelible.numbers.words import between
from indelible.progress import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from indelible.facts.fact import Fact
    from indelible.models.load import LoadedModel
    from indelible.numbers.measures import FactSet
    from indelible.study.run.cost import Speed

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do, and how long that takes here.")]


def speed_of(loaded: LoadedModel) -> Speed:
    """How fast a model answers and is edited on this machine, measured for a few seconds."""
    from indelible.facts.world import world_facts
    from indelible.study.run.cost import measured_speed

    return measured_speed(loaded.model, loaded.tokenizer, world_facts(), [])


def questions_about(facts: Iterable[Fact], fact_set: FactSet) -> int:
    """Questions of a whole exam about facts; one without a new object is refused later, if it has to have one."""
    from indelible.exam.questions import questions_for

    return len(questions_for((fact for fact in facts if fact_set == "intrinsic" or fact.new_object), fact_set))


def sought(known: int, given: Iterable[Fact] | None) -> int:
    """How many facts are asked, mostly, to find so many that a model knows."""
    from indelible.study.run.steps.select import USUALLY_KNOWN

    return round(known / USUALLY_KNOWN) if given is None else len(list(given))


def tell(what: str, low: float, high: float, only: bool) -> None:
    """Say what is done and about how many seconds it takes; on stdout where nothing else is (``only``)."""
    span = Span(Span.about(low).low, Span.about(high).high)
    say(f"Cost: {what}; {between(span)} on this machine as it is now.", err=not only)
