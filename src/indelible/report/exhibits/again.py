"""What to type to have it all again, with the settings and where the run came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
import yaml

from indelible.numbers.words import counted
from indelible.report.exhibit import Fold, Grid, Heading, Html, Part, Words, exhibit
from indelible.report.run import Run, flat

CODE = '<pre tabindex="0">{{ code }}</pre>'


@exhibit("again", place=100)
def again(run: Run) -> Iterator[Part]:
    """Commands, settings, provenance."""
    yield Heading("How to run it again", "rerun")
    for what, command in commands(run.name, run.provenance):
        yield Words(what)
        yield Html(CODE, {"code": command})
    yield Heading("Settings", "settings", level=3)
    if run.changed is not None:
        said = list(flat(run.changed))
        yield Words("All that is not as it would be without a word:", "note")
        yield Grid(pd.DataFrame(said, columns=["setting", "value"]), "Settings that differ from defaults", look="pairs")
    if run.settings:
        study = yaml.safe_dump(dict(run.settings), sort_keys=False, allow_unicode=True)
        yield Fold("All settings, as a study file", [Html(CODE, {"code": study})], "study.yaml")
    else:
        yield Words("None were recorded.", "note")
    yield Heading("Provenance", "provenance", level=3)
    if run.provenance:
        recorded = pd.DataFrame(list(flat(run.provenance)), columns=["of", "value"])
        yield Fold(counted(len(recorded), "line"), [Grid(recorded, "Provenance", look="pairs")])
    else:
        yield Words("None was recorded.", "note")


def commands(name: str, provenance: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What to do again, each with the command that does it; what provenance does not record is left out.

    A run folder is taken to lie in runs/, under its own name (not its study's, which several runs can share).
    """
    versions = provenance.get("versions")
    if isinstance(versions, Mapping):
        pinned = [f"{one}=={str(of).partition('+')[0]}" for one, of in versions.items() if one != "python"]
        yield "The same software:", f"pip install {' '.join(pinned)}"
    if provenance.get("command"):
        yield "What was typed:", str(provenance["command"])
    yield (
        "The same study again, from the settings below, saved as study.yaml:",
        f"indelible study study.yaml --out runs/{name}-again",
    )
    yield "This report again, from the tables in the run folder:", f"indelible report runs/{name}"
    yield "Both runs on one page, arm by arm:", f"indelible report runs/{name} runs/{name}-again"
