"""What was asked, and what the model said: every fact of every arm, what was lost first."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from indelible.numbers.measures import PHASES
from indelible.numbers.words import counted
from indelible.report.exhibit import Data, Fold, Heading, Html, Part, Words, exhibit
from indelible.report.run import Run
from indelible.report.transcript import transcript

LARGEST_LIST = 400
"""Facts listed per arm, at most; the page says how many there were."""
LARGEST_PAGE = 3_000
"""Facts listed on the page, at most, shared among its arms."""
FEWEST_LISTED = 20
FIND = """
<div id="find" class="find" role="search" hidden><label for="find-words">Search</label> <input id="find-words" type="search" autocomplete="off" placeholder="words, an arm, lost, kept"> <output class="note" for="find-words"></output></div>
"""  # noqa: E501
LIST = """
{% import "parts.html.j2" as parts %}
<div class="box" role="region" aria-label="Facts of {{ arm }}" tabindex="0">
<table class="facts">
<thead><tr>{% for name in told %}<th scope="col">{{ name }}</th>{% endfor %}<th scope="col">set</th><th scope="col">asked</th><th scope="col">answer that counts</th>{% for phase in phases %}<th scope="col">{{ phase }} says</th>{% endfor %}<th scope="col">held-out wordings</th><th scope="col">in tuning</th></tr></thead>
<tbody>
{% for line in lines %}
<tr>{% for name in told %}<td>{{ line[name] }}</td>{% endfor %}<td><span class="tag {{ line.fact_set }}">{{ line.fact_set }}</span></td><td class="asked">{{ line.prompt }}</td><td>{{ line.target }}</td>{% for phase in phases %}{{ parts.said(line[phase ~ "_says"], line[phase ~ "_success"]) }}{% endfor %}<td>{{ line.held_out_wordings }}</td><td{{ ' class="lost"' | safe if line.outcome == 'lost' else '' }}>{{ line.outcome }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
"""  # noqa: E501


@exhibit("facts", place=80)
def facts(run: Run) -> Iterator[Part]:
    """A list per arm, which the page can search and sort."""
    yield Heading("What was asked, and what the model said", "facts")
    yield Words(
        "Each fact's own prompt; ✓ marks a success, ✗ a failure. Held-out wordings: successes before → after tuning.",
        "note",
    )
    yield Html(FIND)
    asked = {arm: transcript(run.answers.arm(arm)) for arm in run.arms}
    told = ["seed"] if run.runs["seed"].nunique() > 1 else []
    told += ["copy"] if any((lines["copy"] > 0).any() for lines in asked.values()) else []
    largest = min(LARGEST_LIST, max(FEWEST_LISTED, LARGEST_PAGE // max(len(asked), 1)))
    for arm, lines in asked.items():
        yield _list(arm, lines, told, largest)
    yield Data("facts", pd.concat(asked, names=["arm"]).reset_index("arm"))


def _list(arm: str, lines: pd.DataFrame, told: list[str], largest: int) -> Part:
    if (lines["outcome"] == "not tuned").all():
        note = "not tuned"
    else:
        note = f"{(lines['outcome'] == 'lost').sum()} lost in tuning"
    facts, asked = len(lines.drop_duplicates(["fact_set", "fact_id"])), len(lines)
    what = counted(facts, "fact") + ("" if facts == asked else f", asked {asked:,} times over seeds and models")
    listed = first(lines, largest)
    parts: list[Part] = [Words("Nothing was asked in this arm.", "note")]
    if len(listed):
        content = {"arm": arm, "lines": listed.to_dict("records"), "told": told, "phases": PHASES}
        parts = [Html(LIST, content)]
    if len(listed) < len(lines):
        cut = f"{len(listed)} of {len(lines)} answers, what was lost first; tables/facts.csv has them all."
        parts.append(Words(cut, "note"))
    return Fold(arm, parts, f"{what}, {note}", "arm")


def first(lines: pd.DataFrame, largest: int) -> pd.DataFrame:
    """At most ``largest`` lines, with room for both sets."""
    if len(lines) <= largest:
        return lines
    edited, others = lines[lines["fact_set"] == "edited"], lines[lines["fact_set"] != "edited"]
    room = min(len(edited), max(largest // 2, largest - len(others)))
    return pd.concat([edited[:room], others[: largest - room]])
