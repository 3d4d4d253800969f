"""A few facts from close by: what was edited, and what the model really said in each phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from indelible.numbers.measures import PHASES
from indelible.report.exhibit import Heading, Html, Part, Words, exhibit
from indelible.report.exhibits.facts import anchors
from indelible.report.run import Run

KINDS: tuple[tuple[str, str, str], ...] = (
    ("edited", "lost", "An edit that tuning undid"),
    ("edited", "kept", "An edit that lasted"),
    ("edited", "worded", "An edit that lasted in its own wording alone"),
    ("intrinsic", "lost", "A fact of the model's own that tuning took"),
    ("intrinsic", "lost to the edit", "A fact that the edit itself cost"),
)
"""Set, outcome ("worded" of an edit that lasted, no held-out wording of which did) and what stands above the card."""
CARDS = """
{% import "parts.html.j2" as parts %}
<div class="cards">
{% for card in cards %}
<article class="card {{ card.fact_set }}">
<h3>{{ card.title }}</h3>
<p class="asked">{{ card.prompt }} <span class="blank">…</span></p>
<p class="note">{% if card.rival and card.fact_set == "edited" %}<s>{{ card.rival }}</s> → <strong>{{ card.target }}</strong>{% else %}<strong>{{ card.target }}</strong>{% endif %}{% if card.relation %} · {{ card.relation | replace("_", " ") }}{% endif %}{% if card.anchor %} · <a href="#{{ card.anchor }}">in all arms</a>{% endif %}</p>
<dl>
{% for phase in phases %}
<div><dt>{{ phase }}</dt>{{ parts.told(card[phase ~ "_says"], card[phase ~ "_success"]) }}</div>
{% endfor %}
</dl>
</article>
{% endfor %}
</div>
"""  # noqa: E501


@exhibit("cards", place=5)
def cards(run: Run) -> Iterator[Part]:
    """One fact of each kind that there is, out of the arm that speaks for the study."""
    if run.plain is None:
        return
    found = list(chosen(run.transcripts[run.transcripts["arm"] == run.plain]))
    if found:
        where = anchors(run)
        told = [card | {"anchor": where.get((card["fact_set"], card["fact_id"]))} for card in found]
        yield Heading("What the model said", "cards")
        yield Words(f"Facts of the arm {run.plain}, the first of each kind in their order; answers are cut.", "note")
        yield Html(CARDS, {"cards": told, "phases": PHASES})


def chosen(lines: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The first line of a transcript of each of `KINDS`, if it can be of a relation that no card is of."""
    taken: set[tuple[str, str]] = set()
    relations: set[object] = set()
    worded = lines["held_out_wordings"].str.contains("\N{RIGHTWARDS ARROW} 0/") & (lines["outcome"] == "kept")
    for fact_set, outcome, title in KINDS:
        fits = worded if outcome == "worded" else (lines["outcome"] == outcome) & ~worded
        records: list[dict[str, Any]] = lines[fits & (lines["fact_set"] == fact_set)].to_dict("records")  # type: ignore[assignment]
        fresh = [one for one in records if (fact_set, one["fact_id"]) not in taken]
        for card in sorted(fresh, key=lambda one: one["relation"] in relations)[:1]:
            taken.add((fact_set, card["fact_id"]))
            relations.add(card["relation"])
            yield card | {"title": title}
