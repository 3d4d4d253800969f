"""Built-in facts that a model knows, for whoever brings none of their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from indelible.errors import FactsError
from indelible.exam.exam import known_facts
from indelible.facts.choose import in_turns
from indelible.facts.fact import Fact
from indelible.facts.neighbours import nesting
from indelible.facts.world import world_facts
from indelible.models.load import LoadedModel
from indelible.progress import Progress


def facts_known_to(
    loaded: LoadedModel,
    candidates: Sequence[Fact] | None = None,
    *,
    enough: int,
    seed: int = 0,
    but_about: Collection[str] = (),
    context: str = "",
    progress: Progress | None = None,
) -> list[Fact]:
    """The first facts that a model answers, ``enough`` at most; see ``known_facts``.

    Args:
        candidates: in the order in which they are asked; by default the built-in ones, relations taking turns.
        seed: of the built-in facts' order.
        but_about: subjects that none of them may have, whatever the case, nor hold or be held in as whole words.

    Raises:
        FactsError: if it answers none of the candidates that were given.
    """
    offered = in_turns(world_facts(), seed) if candidates is None else candidates
    is_about = nesting(but_about)
    asked = [fact for fact in offered if not is_about(fact.subject)]
    known = known_facts(loaded.model, loaded.tokenizer, asked, enough=enough, context=context, progress=progress)
    if not known and candidates is not None:
        more = len(offered) - len(asked)
        besides = f" ({more} more are about edited subjects)" if more else ""
        raise FactsError(f"The model knows none of these {len(asked)} facts{besides}.", "Give facts that it answers.")
    return known
