"""``indelible edit``: make an edit and keep it as a small file of its own."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.completing import editors, models
from indelible.cli.options import FORMAT_HELP, AsJson, Columns, Force, Schema, Trust, delta_file, model_of, read_file
from indelible.cli.terminal import say
from indelible.documents import LARGEST
from indelible.errors import EditError, StoreError
from indelible.numbers.words import counted
from indelible.registry import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indelible.edits.deltas.delta import Edit

SHOWN = 5
EXAMPLES = (
    "Examples:",
    "`indelible edit smollm2-135m --facts my.jsonl --editor memit -o deltas/mine`",
    "`indelible edit smollm2-135m --facts counterfact.jsonl --limit 24 --editor pmet --paraphrases 3 -o d`",
    "`indelible edit gpt2 --facts my.csv --editor rome --set layer=5 --bystanders 0 -o d`",
    "`indelible edit gpt2 --facts my.csv --column true_object=was --column new_object=is --editor rome -o d`",
    *FORMAT_HELP,
)


def names() -> Sequence[str]:
    """What stands in the help about names."""
    return (f"Editors: {_editors()}.",)


def edit(
    model: Annotated[str, typer.Argument(help="A bundled name, a folder or a hub id.", autocompletion=models)],
    facts: Annotated[
        Path, typer.Option(help="Facts with new objects (JSONL, JSON, CSV; see below), or a benchmark's.")
    ],
    editor: Annotated[str, typer.Option(help="The editor's name; see below.", autocompletion=editors)],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File for the delta, .safetensors where no suffix is given.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the editor, e.g. layers=[3,4,5]. Repeatable."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DELTA",
            help="A delta that the edit is to be made on top of, and whose facts alphaedit leaves alone and grace and"
            " ike continue. Repeatable: a chain of deltas, in its order.",
        ),
    ] = None,
    paraphrases: Annotated[int, typer.Option(min=0, help="Further wordings of each fact to edit with.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Edit the first so many facts of the file.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="Seed of all that is drawn.")] = 0,
    bystanders: Annotated[
        int, typer.Option(min=0, help="World facts whose subjects are left alone; 0 for the published methods.")
    ] = 400,
    corpus: Annotated[str, typer.Option(help="Text for covariances: encyclopedia, or a file, a text per line.")] = (
        "encyclopedia"
    ),
    schema: Schema = None,
    columns: Columns = None,
    force: Force = False,
    exam: Annotated[bool, typer.Option(help="Ask the facts under the edit.")] = True,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Edit facts in a model and save the change as a delta of a few megabytes.

    The model itself is not changed. `indelible apply` writes an edited copy of it.

    With `--earlier`, the model given is still the base: the earlier deltas are put into it for the edit. A new delta of
    weights then belongs to what they leave (`indelible compose` makes one of the chain); one of grace or ike takes its
    predecessor's place.
    """
    from indelible.care.edit import edit as edit_facts
    from indelible.edits.editor import EDITORS
    from indelible.study.design.config import assign
    from indelible.study.design.settings import NO_EDITOR
    from indelible.validation import validated
    from indelible.watching import counting

    out = delta_file(out, force)
    if editor == NO_EDITOR:
        raise EditError(f"{editor!r} makes no edit: it is the control of a study.", f"Give one of {_editors()}.")
    options: dict[str, Any] = {}
    for setting in settings or ():
        assign(options, setting)
    made_by = validated(EDITORS.get(editor), options, "")
    found = read_file(facts, schema, columns)[:limit]
    took: dict[str, float] = {}
    done = edit_facts(
        model_of(model, trust),
        found,
        made_by,
        paraphrases=paraphrases,
        earlier=_earlier(earlier or (), out),
        bystanders=bystanders,
        corpus=corpus,
        seed=seed,
        exam=exam,
        out=out,
        jobs=partial(counting, took=took),
    )
    untaken = [fact for fact in found if fact.id in done.not_taken]
    size, seconds = out.stat().st_size, took["editing"]
    if as_json:
        result: dict[str, Any] = {
            "delta": str(out),
            "kind": done.kind,
            "facts": len(found),
            "parameters": list(done.parameters),
            "bytes": size,
            "seconds": round(seconds, 1),
        }
        if shares := done.manifest.arrived:
            result["arrived"] = round(fmean(shares.values()), 3)
        if exam:
            result |= {"present": len(found) - len(untaken), "not_taken": [fact.id for fact in untaken]}
        say(json.dumps(result, indent=2))
        return
    say(f"{counted(len(found), 'fact')} edited with {editor} in {seconds:.1f} s")
    if shares := done.manifest.arrived:
        say(f"{fmean(shares.values()):.0%} of the change wanted of the value layer's output arrives")
    if exam:
        say(f"{len(found) - len(untaken)} of {len(found)} are answered under the edit")
    if untaken:
        named = "; ".join(f"{fact.text()} {fact.new_object}" for fact in untaken[:SHOWN])
        more = f"; and {len(untaken) - SHOWN} more" if len(untaken) > SHOWN else ""
        say(f"Not taken: {named}{more}. `indelible verify` says what a model with the delta answers instead.")
    where = "changes" if done.kind == "weights" else "stands beside"
    what = "stands before each prompt" if done.context else f"{where} {', '.join(done.parameters)}"
    say(f"{done.kind}: {what}")
    say(f"Delta: {out} ({size / 1e6:.1f} MB)")


def _earlier(files: Sequence[Path], out: Path) -> list[Edit]:
    """The deltas to go on from, none of which (a StoreError) may be replaced by a delta of weights that needs it."""
    from indelible.edits.deltas.adapter import read_delta
    from indelible.edits.deltas.manifest import with_suffix

    found = [read_delta(file) for file in files]
    for file, one in zip(files, found, strict=True):
        if one.kind == "weights" and out.resolve() in (file.resolve(), with_suffix(file).resolve()):
            raise StoreError(
                f"{out} is an earlier delta, on which the new one stands: without it, it could not be applied.",
                "Give another file.",
            )
    return found


def _editors() -> str:
    return ", ".join(listed("indelible.edits.editors", "indelible.editors"))
