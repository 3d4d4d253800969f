"""What was asked, and what came of it: facts against arms, and behind each fact what the model said in all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from indelible.numbers.words import counted
from indelible.report.exhibit import Data, Heading, Html, Part, Words, exhibit
from indelible.report.exhibits.answer import short
from indelible.report.run import Run

LARGEST_PAGE = 4_000
"""Answers on the page, at most: a line for each arm, seed and fact."""
MOST_OF_A_FACT = 60
"""Of them of one fact, which many copies of a model can be asked."""
MARKS = {
    "kept": ("k", "✓", "kept"),
    "lost": ("l", "✗", "lost in tuning"),
    "lost to the edit": ("d", "\N{MINUS SIGN}", "lost to the edit"),
    "gained": ("g", "+", "only after tuning"),
    "never worked": ("n", "·", "never worked"),
    "not tuned": ("u", "?", "not tuned"),
}
"""Outcome -> class, mark, and words of the key."""
MIXED = "m"
MATRIX = """
{% import "parts.html.j2" as parts %}
<ul class="marks" aria-label="Key to the marks">
{% for style, mark, words in marks %}<li><span class="{{ style }}" aria-hidden="true">{{ mark }}</span> {{ words }}</li>
{% endfor %}
</ul>
<form id="find" class="find" role="search" aria-label="Facts" hidden>
<label>Search <input type="search" name="words" autocomplete="off" placeholder="words, answers"></label>
<label>Facts <select name="set"><option value="">all</option><option>edited</option><option>intrinsic</option></select></label>
<label>Relation <select name="relation"><option value="">all</option>{% for one in relations %}<option value="{{ one }}">{{ one | replace("_", " ") }}</option>{% endfor %}</select></label>
<label>Outcome <select name="outcome"><option value="">all</option>{% for style, mark, words in marks %}<option value="{{ style }}">{{ words }}</option>{% endfor %}</select></label>
<label>in <select name="arm"><option value="">any arm</option>{% for arm in arms %}<option value="{{ loop.index0 }}">{{ arm }}</option>{% endfor %}</select></label>
<output class="note"></output>
</form>
<div class="box tall" role="region" aria-label="Facts against arms" tabindex="0">
<table class="matrix sortable">
<thead><tr><th scope="col">fact</th><th scope="col">relation</th><th scope="col">answer that counts</th>{% for name in names %}<th scope="col" class="arm"><span>{{ name }}</span></th>{% endfor %}</tr></thead>
<tbody>
{% for fact in facts %}
<tr id="r{{ fact.number }}" data-set="{{ fact.set }}" data-relation="{{ fact.relation }}"><th scope="row"><a href="#f{{ fact.number }}" class="{{ fact.set }}">{{ fact.name }}</a></th><td>{{ fact.relation | replace("_", " ") }}</td><td>{{ fact.target }}</td>{% for style, mark in fact.cells %}<td{% if style %} class="{{ style }}"{% endif %}>{{ mark }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for fact in facts %}
<section class="fact" id="f{{ fact.number }}" aria-label="{{ fact.name }}">
<p><a class="close" href="#r{{ fact.number }}">close</a> <span class="tag {{ fact.set }}">{{ fact.set }}</span> <strong>{{ fact.name }}</strong>{% if fact.relation %} · {{ fact.relation | replace("_", " ") }}{% endif %}</p>
{% for asked in fact.asked %}
<p>{{ asked.prompt }} <strong>{{ asked.target }}</strong>{% if asked.rival and fact.set == "edited" %} <span class="note">in place of {{ asked.rival }}</span>{% endif %} <span class="note">· {{ asked.where }}</span></p>
<table><thead><tr><th scope="col">arm</th><th scope="col">base</th><th scope="col">edited</th><th scope="col">tuned</th><th scope="col">held-out wordings</th></tr></thead><tbody>
{% for line in asked.lines %}
<tr><th scope="row">{{ line.arm }}</th>{{ parts.said(line.base_says, line.base_success) }}{{ parts.said(line.edited_says, line.edited_success) }}{{ parts.said(line.tuned_says, line.tuned_success) }}<td>{{ line.held_out_wordings }}</td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
{% if fact.more %}<p class="note">{{ fact.more }} further answers are in tables/facts.csv.</p>{% endif %}
</section>
{% endfor %}
"""  # noqa: E501
Key = tuple[str, str]
"""Set and id of a fact."""


@exhibit("facts", place=80)
def facts(run: Run) -> Iterator[Part]:
    """The matrix, which the page can search, filter and sort."""
    lines = run.transcripts
    yield Heading("Every fact in every arm", "facts")
    if lines.empty:
        yield Words("Nothing was asked.", "note")
        return
    listed = anchors(run)
    groups = {key: own for key, own in _by_fact(lines) if key in listed}
    arms = [arm for arm in run.arms if arm in set(lines["arm"])]
    marks = [about for outcome, about in MARKS.items() if outcome in set(lines["outcome"])]
    total = len(lines.drop_duplicates(["fact_set", "fact_id"]))
    said = f"{counted(total, 'fact')}, each counted once, though several seeds may ask it: a mark stands for each. "
    said += "A fact leads to what the model said about it; held-out wordings are successes before → after tuning."
    if len(listed) < total:
        said += f" Here are {len(listed)} of them, those lost in most arms first; tables/facts.csv has all."
    yield Words(said, "note")
    content = {
        "marks": marks,
        "relations": sorted({str(one) for one in lines["relation"].dropna()}),
        "arms": arms,
        "names": short(arms),
        "facts": [_fact(number, key, groups[key], arms) for number, key in enumerate(listed)],
    }
    yield Html(MATRIX, content)
    yield Data("facts", lines)


def anchors(run: Run) -> dict[Key, str]:
    """Facts on the page, in its order, with their anchors: those lost most often first, edited before intrinsic, with
    room for both sets."""
    lines = run.transcripts
    if lines.empty:
        return {}
    keys = ["fact_set", "fact_id"]
    sizes = lines.assign(lost=lines["outcome"] == "lost").groupby(keys, sort=True, observed=True)
    found = sizes.agg(lost=("lost", "sum"), answers=("lost", "size")).reset_index()
    found = found.sort_values(["fact_set", "lost"], ascending=[True, False], kind="stable")
    found["answers"] = found["answers"].clip(upper=MOST_OF_A_FACT)
    of_set = {str(name): own for name, own in found.groupby("fact_set", sort=False, observed=True)}
    half = LARGEST_PAGE // len(of_set)
    room = {name: min(int(own["answers"].sum()), half) for name, own in of_set.items()}
    left = LARGEST_PAGE - sum(room.values())
    chosen = [own[own["answers"].cumsum() <= room[name] + left] for name, own in of_set.items()]
    listed = pd.concat(chosen)[keys].itertuples(index=False, name=None)
    return {(str(fact_set), str(fact_id)): f"f{number}" for number, (fact_set, fact_id) in enumerate(listed)}


def _by_fact(lines: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    for (fact_set, fact_id), own in lines.groupby(["fact_set", "fact_id"], sort=False, observed=True):
        yield (str(fact_set), str(fact_id)), own


def _fact(number: int, key: Key, lines: pd.DataFrame, arms: list[str]) -> dict[str, Any]:
    """A fact as the template shows it: its cells, and its answers by what was asked."""
    outcomes = {arm: list(own) for arm, own in lines.groupby("arm", sort=False)["outcome"]}
    shown = lines[:MOST_OF_A_FACT]
    first = lines.iloc[0]
    asked = []
    for (seed, copy, prompt, target), own in shown.groupby(["seed", "copy", "prompt", "target"], sort=False):
        where = f"seed {seed}" + (f", copy {copy}" if shown["copy"].max() else "")
        about = {"prompt": prompt, "target": target, "rival": own["rival"].iloc[0], "where": where}
        asked.append(about | {"lines": own.to_dict("records")})
    return {
        "number": number,
        "set": key[0],
        "name": first["subject"] or key[1],
        "relation": first["relation"] or "",
        "target": ", ".join(dict.fromkeys(lines["target"].astype(str))),
        "cells": [_cell(outcomes.get(arm, [])) for arm in arms],
        "asked": asked,
        "more": len(lines) - len(shown),
    }


def _cell(outcomes: list[str]) -> tuple[str, str]:
    """Class and text of a cell: a mark for each seed, or how many of many kept it."""
    if not outcomes:
        return "", ""
    styles = {MARKS[outcome][0] for outcome in outcomes}
    kept = f"{outcomes.count('kept')}/{len(outcomes)}"
    text = "".join(MARKS[outcome][1] for outcome in outcomes) if len(outcomes) <= 4 else kept
    return " ".join(sorted(styles)) if len(styles) == 1 else " ".join([MIXED, *sorted(styles)]), text
