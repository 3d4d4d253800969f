"""What stands above a page: which model was edited how, tuned for what, on how many facts, under which seeds, when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from indelible.numbers.measures import CONTROL_EDITOR
from indelible.numbers.words import counted
from indelible.report.exhibit import Html
from indelible.report.run import Run

MASTHEAD = """
{% for facts in mastheads %}
<dl class="masthead">
{% for name, value in facts %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% endfor %}
"""
MOST_NAMED = 6
"""Things of one kind that are named; of more, it is said how many there are."""


def masthead(*runs: Run) -> Html:
    """One line of facts about each run."""
    named = len(runs) > 1
    lines = [([("run", run.name)] if named else []) + list(_about(run)) for run in runs]
    return Html(MASTHEAD, {"mastheads": lines})


def title(run: Run) -> str:
    """The question that a run puts."""
    editors = " and ".join(run.editors) if 0 < len(run.editors) <= 2 else ""
    where = f" in {model}" if (model := _model(run.settings)) else ""
    return f"Do {editors + ' ' if editors else 'these '}edits{where} survive fine-tuning?"


def _about(run: Run) -> Iterator[tuple[str, str]]:
    lines = run.summary
    if model := _model(run.settings):
        yield "model", model
    yield _several("editor", run.editors or ["none"])
    yield _several("objective", [str(line["objective"]) for line in lines])
    tuners = dict.fromkeys(str(line["tuner"]) for line in lines)
    if list(tuners) != ["full"]:
        yield _several("tuner", list(tuners))
    yield "facts", f"{run.distinct('edited'):,} edited, {run.distinct('intrinsic'):,} intrinsic"
    each = {
        (line["n_edits"], line["n_intrinsic"])
        for line in lines
        if line["editor"] != CONTROL_EDITOR and line["n_edits"] is not None
    }
    seeds = [str(seed) for seed in dict.fromkeys(run.runs["seed"])]
    if len(seeds) > 1 and len(each) == 1:
        edits, intrinsic = each.pop()
        yield "in each seed", f"{edits} and {intrinsic}"
    yield _several("seed", seeds)
    arms = len(run.arms)
    yield ("arm" if arms == 1 else "arms"), str(arms)
    if date := _date(run.provenance):
        yield "date", date


def _several(name: str, values: list[str]) -> tuple[str, str]:
    different = list(dict.fromkeys(values))
    if len(different) > MOST_NAMED:
        return f"{name}s", counted(len(different), name)
    return name if len(different) == 1 else f"{name}s", ", ".join(different)


def _model(settings: Mapping[str, Any]) -> str:
    """The model's name; of a folder, its own."""
    name = str(settings.get("model") or "")
    return Path(name).name if Path(name).is_absolute() else name


def _date(provenance: Mapping[str, Any]) -> str:
    """When the run ended, e.g. "28 November 2026"; "" where that is not recorded."""
    last = provenance.get("last_run")
    try:
        ended = datetime.fromisoformat(str(last["ended"] if isinstance(last, Mapping) else ""))
    except (KeyError, ValueError):
        return ""
    return f"{ended.day} {ended:%B %Y}"
