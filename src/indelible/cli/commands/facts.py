"""``indelible facts``: what the built-in set, or a file, holds, and which of it a model knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.completing import models
from indelible.cli.options import FORMAT_HELP, AsJson, Columns, Schema, Trust, read_file
from indelible.cli.terminal import say
from indelible.errors import ConfigError
from indelible.numbers.words import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from indelible.facts.fact import Fact

SHOWN = 40
EXAMPLES = (
    "Examples:",
    "`indelible facts --known-by smollm2-135m` # asks the model every fact",
    "`indelible facts --known-by smollm2-135m --json > known.json` # with every fact, known or not",
    "`indelible facts --file my.jsonl` # checks a file of your own",
    *FORMAT_HELP,
)


def facts(
    file: Annotated[
        Path | None, typer.Option(help="Facts of your own (JSONL, JSON or CSV) in place of the built-in ones.")
    ] = None,
    schema: Schema = None,
    columns: Columns = None,
    known_by: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Ask this model, and say what it answers.", autocompletion=models),
    ] = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Count facts per relation: subjects, wordings, and with --known-by which of them a model answers.

    A fact is known where the answer to its prompt begins with the true object. One without a true object is not asked.
    """
    if file is None and (schema is not None or columns):
        raise ConfigError("--schema and --column say how a file is laid out, and there is none.", "Give --file.")
    from indelible.cli.display import show_table
    from indelible.facts.relations import relations_of
    from indelible.facts.world import world_facts
    from indelible.watching import counting

    found = world_facts() if file is None else read_file(file, schema, columns)
    known = None
    if known_by is not None:
        from indelible.exam.exam import known_facts
        from indelible.models.load import load

        loaded = load(known_by, trust_remote_code=trust)
        with counting("asking") as progress:
            known = {fact.id for fact in known_facts(loaded.model, loaded.tokenizer, found, progress=progress)}
    lines = []
    for one in relations_of(found, known):
        line = {"relation": one.name, "facts": one.facts, "wordings": one.wordings, "for example": one.example}
        lines.append(line if one.known is None else {**line, "known": one.known})
    if as_json:
        content = lines if known is None else {"relations": lines, "facts": _told(found, known)}
        say(json.dumps(content, indent=2, ensure_ascii=False))
        return
    shown = ["relation", "facts", "wordings", *(["known"] if known is not None else []), "for example"]
    show_table(shown, [[str(line[column]) for column in shown] for line in lines[:SHOWN]])
    if len(lines) > SHOWN:
        say(f"{SHOWN} of {len(lines)} relations are shown; --json has all.")
    if known is not None:
        say()
        told = [[one["prompt"], one["true_object"], _KNOWN[one["known"]]] for one in _told(found[:SHOWN], known)]
        show_table(["fact", "true object", "known"], told)
        if len(found) > SHOWN:
            say(f"{SHOWN} of {len(found)} facts are shown; --json has all.")
    total = f"{counted(len(found), 'fact')} in {counted(len(lines), 'relation')}"
    say(total if known is None else f"{total}; {known_by} knows {len(known)}")


_KNOWN = {True: "yes", False: "no", None: "not asked"}


def _told(facts: Sequence[Fact], known: Collection[str]) -> list[dict[str, Any]]:
    """Which facts are known; None of those that cannot be."""
    return [
        {
            "id": fact.id,
            "prompt": fact.text(),
            "true_object": fact.true_object,
            "known": fact.id in known if fact.true_object else None,
        }
        for fact in facts
    ]
