"""What several commands take: files of facts, deltas to write, settings as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.terminal import say
from indelible.errors import ConfigError, FactsError, StoreError
from indelible.facts.benchmarks import SCHEMAS
from indelible.files import check_named, check_writable, disk_errors, whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indelible.care.junit import Case
    from indelible.facts.fact import Fact
    from indelible.models.load import LoadedModel

SHOWN_ROWS = 20
EXAMPLES = (
    '{"subject": "France", "prompt": "The capital of {} is", "true_object": "Paris", "new_object": "Rome"}',
    '{"subject": "Japan", "prompt": "The capital of {} is", "true_object": "Tokyo", "new_object": "Cairo",'
    ' "paraphrases": ["{} has the capital"]}',
)
FORMAT_HELP = (
    "A file of facts has one JSON object a line (.jsonl), or is a JSON array, or a CSV with a header:",
    *(f"`{example}`" for example in EXAMPLES),
    "`prompt` has `{}` for the subject, or the subject itself; the object follows it, after a space unless the prompt"
    " ends in white space, an opening mark, or a script without spaces. An edit needs `new_object`, and then no"
    " `true_object`. Optional: `id`, `relation`, `paraphrases` (wordings to edit with), `held_out` (wordings to ask"
    ' with), `neighbours` (`{"prompt": ..., "answer": ...}`, to be left alone): lists, in a CSV with `|` between'
    " wordings, neighbours as a JSON list; `reversal` (asks back, `The city of {} is the capital of`).",
)
"""Paragraphs for the help of commands that read facts."""

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
Junit = Annotated[Path | None, typer.Option(help="Write a test case per fact to this JUnit XML file.")]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that a model brings along, where it needs it.")
]
Schema = Annotated[
    str | None,
    typer.Option(
        help="How a file of facts is laid out, if its keys don't say: "
        + "; ".join(f"{name} ({', '.join(schema.keys)})" for name, schema in SCHEMAS.items())
        + "."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="Where a fact's field stands in the file, e.g. true_object=answer. Repeatable.",
    ),
]


def model_of(name: str, trusted: bool) -> LoadedModel | str:
    """What is to be loaded by its name, or has been where its own code may be run."""
    from indelible.models.load import load

    return load(name, trust_remote_code=True) if trusted else name


def check_file(out: Path) -> None:
    """Raise a StoreError if a file of that name cannot be written."""
    check_writable(out.parent)
    if out.is_dir():
        raise StoreError(f"{out} is a folder.", "Give a file.")


def write_cases(out: Path, suite: str, cases: Sequence[Case]) -> None:
    """Write test cases as JUnit XML; folders above are made."""
    from indelible.care.junit import junit

    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as unfinished:
        unfinished.write_text(junit(suite, cases), encoding="utf-8")


def delta_file(out: Path, force: bool) -> Path:
    """The file of a delta that is to be called so; a StoreError if it cannot be written, or is there already."""
    from indelible.edits.deltas.manifest import with_suffix

    check_named(out)
    file = with_suffix(out)
    check_file(file)
    if file.exists() and not force:
        raise StoreError(f"{file} is there already.", "Give another file, or --force to replace it.")
    return file


def read_file(file: Path, schema: str | None, columns: Sequence[str] | None) -> list[Fact]:
    """The facts of a file, every row of which has to be usable; ``columns`` as typed, each ``FIELD=COLUMN``.

    Raises:
        ConfigError: if a column is not mapped in these words.
        FactsError: after saying on stderr which rows are not usable.
    """
    from indelible.facts.read import read_facts

    result = read_facts(file, schema=schema, columns=_mapped(columns or ()) or None)
    if result.rejected:
        for row in result.rejected[:SHOWN_ROWS]:
            say(f"{file} line {row.line}: {row.reason}", err=True)
        raise FactsError(
            f"{len(result.rejected)} of {len(result.rejected) + len(result.facts)} rows of {file} cannot be used.",
            "Mend or remove them: every row has to be a fact.",
        )
    for note in result.in_words(SHOWN_ROWS):
        say(f"{file}: {note}", err=True)
    return list(result.facts)


def _mapped(columns: Sequence[str]) -> dict[str, str]:
    mapped: dict[str, str] = {}
    for column in columns:
        field, _, name = column.partition("=")
        if not (field and name):
            raise ConfigError(f"--column {column!r} maps nothing.", "Write FIELD=COLUMN, e.g. true_object=answer.")
        if field in mapped:
            raise ConfigError(f"--column maps {field!r} twice.", "Map every field once.")
        mapped[field] = name
    return mapped
