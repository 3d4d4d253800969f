"""``indelible edit``: make an edit and keep it as a small file of its own."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.commands.facts import Columns, Schema, read_file
from indelible.cli.deltas import file_for
from indelible.edits.deltas.manifest import with_suffix
from indelible.errors import EditError, FactsError, StoreError
from indelible.numbers.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indelible.edits.deltas.delta import Edit
    from indelible.facts.fact import Fact
    from indelible.models.load import LoadedModel

SHOWN = 5
# Written out, for asking the registry would import every editor; a test holds the two together.
EDITOR_NAMES = "alphaedit, emmet, ft, ft-l, ft-m, grace, ike, lora, memit, pmet, r-rome, rome"


def edit(
    model: Annotated[str, typer.Argument(help="A bundled name, a folder or a hub id.")],
    facts: Annotated[
        Path, typer.Option(help="Facts with new objects (JSONL, JSON, CSV; see below), CounterFact or zsRE.")
    ],
    editor: Annotated[str, typer.Option(help=f"One of {EDITOR_NAMES}, or one that another distribution registers.")],
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 0,
    bystanders: Annotated[
        int, typer.Option(min=0, help="World facts whose subjects are left alone; 0 for the published methods.")
    ] = 400,
    corpus: Annotated[str, typer.Option(help="Text for covariances: encyclopedia, or a file, a text per line.")] = (
        "encyclopedia"
    ),
    schema: Schema = None,
    columns: Columns = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    exam: Annotated[bool, typer.Option(help="Ask the facts under the edit.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Edit facts in a model and save the change as a delta of a few megabytes.

    The model itself is not changed. `indelible apply` writes an edited copy of it.

    With `--earlier`, the model given is still the base: the earlier deltas are put into it for the edit. A new delta of
    weights then belongs to what they leave (`indelible compose` makes one of the chain); one of grace or ike takes its
    predecessor's place.
    """
    out = file_for(out, force)
    made = _editor(editor, settings or [])
    found = _facts(facts, schema, columns, limit)
    before = _earlier(earlier or [], out)

    from indelible.cli.display import counting
    from indelible.models.bundled.fetch import cache_folder
    from indelible.models.load import load

    loaded = load(model)
    started = time.perf_counter()
    with ExitStack() as stack:
        for one in before:
            stack.enter_context(one.applied(loaded.model))
        with counting("editing") as progress:
            done = made.edit(
                loaded.model,
                loaded.tokenizer,
                found,
                paraphrases=paraphrases,
                earlier=_together(before),
                corpus=_corpus(corpus) if made.uses_text else (),
                bystanders=_bystanders(found, bystanders, seed) if made.uses_text else (),
                seed=seed,
                cache=cache_folder() / "covariances",
                progress=progress,
            )
        seconds = time.perf_counter() - started
        done.save(out)
        answered = _asked(loaded, done, found) if exam else {}
    kept = _answered_before(before, found)
    if kept or answered:
        done = done.with_answers(kept | answered)
        done.save(out)
    result = _result(done, found, out, seconds, exam)
    typer.echo(json.dumps(result, indent=2) if as_json else _spoken(done, found, editor, result))


def _result(done: Edit, found: list[Fact], out: Path, seconds: float, exam: bool) -> dict[str, Any]:
    """What ``--json`` prints."""
    result: dict[str, Any] = {
        "delta": str(out),
        "kind": done.kind,
        "facts": len(found),
        "parameters": list(done.parameters),
        "bytes": out.stat().st_size,
        "seconds": round(seconds, 1),
    }
    if exam:
        untaken = [fact.id for fact in found if fact.id in done.not_taken]
        result |= {"present": len(found) - len(untaken), "not_taken": untaken}
    return result


def _spoken(done: Edit, found: list[Fact], editor: str, result: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{counted(len(found), 'fact')} edited with {editor} in {result['seconds']:.1f} s"]
    if "present" in result:
        lines.append(f"{result['present']} of {len(found)} are answered under the edit")
    if untaken := [fact for fact in found if fact.id in done.not_taken]:
        lines.append(_named(untaken))
    where = "changes" if done.kind == "weights" else "stands beside"
    what = "stands before each prompt" if done.context else f"{where} {', '.join(done.parameters)}"
    lines.append(f"{done.kind}: {what}")
    lines.append(f"Delta: {result['delta']} ({result['bytes'] / 1e6:.1f} MB)")
    return "\n".join(lines)


def _asked(loaded: LoadedModel, done: Edit, found: list[Fact]) -> dict[str, str]:
    """By id, how each fact is answered under the edit."""
    from indelible.care.verify import verify_facts
    from indelible.cli.display import counting

    with counting("asking") as progress, done.applied(loaded.model):
        asked = verify_facts(loaded.model, loaded.tokenizer, found, context=done.context, progress=progress)
    return {one.fact.id: one.state for one in asked}


def _answered_before(before: list[Edit], found: list[Fact]) -> dict[str, str]:
    """What earlier edits say of facts that this one does not edit again: an adapter holds those that it continues."""
    again = {fact.id for fact in found}
    return {id_: state for one in before for id_, state in one.answered.items() if id_ not in again}


def _named(untaken: Sequence[Fact]) -> str:
    """Which facts did not take, and where to see what the model says in their place."""
    named = "; ".join(f"{fact.text()} {fact.new_object}" for fact in untaken[:SHOWN])
    more = f"; and {len(untaken) - SHOWN} more" if len(untaken) > SHOWN else ""
    return f"Not taken: {named}{more}. `indelible verify` says what a model with the delta answers instead."


def _editor(name: str, settings: list[str]) -> Any:
    from indelible.edits.editor import EDITORS
    from indelible.study.design.config import assign
    from indelible.study.design.settings import NO_EDITOR
    from indelible.validation import validated

    if name == NO_EDITOR:
        raise EditError(f"{name!r} makes no edit: it is the control of a study.", f"Give one of {EDITOR_NAMES}.")
    options: dict[str, Any] = {}
    for setting in settings:
        assign(options, setting)
    return validated(EDITORS.get(name), options, "")


def _facts(file: Path, schema: str | None, columns: list[str] | None, limit: int | None) -> list[Fact]:
    found = read_file(file, schema, columns)[:limit]
    for fact in found:
        if fact.new_object is None:
            raise FactsError(f"The fact {fact.id!r} has no new object.", "Give new_object for every fact to be edited.")
    asked: dict[str, Fact] = {}
    for fact in found:
        other = asked.setdefault(fact.text(), fact)
        if other.new_object != fact.new_object:
            raise FactsError(
                f"{fact.text()!r} is to be {other.new_object!r} (fact {other.id!r}) and {fact.new_object!r} (fact"
                f" {fact.id!r}).",
                "Keep one of them.",
            )
    return found


def _earlier(files: list[Path], out: Path) -> list[Edit]:
    """The deltas to go on from.

    Raises:
        EditError: if one cannot be read, or two were made side by side.
        StoreError: if a delta of weights would be replaced by one that needs it to be applied.
    """
    if not files:
        return []
    from indelible.edits.deltas.delta import Edit

    found = [Edit.load(file) for file in files]
    for file, one in zip(files, found, strict=True):
        if one.kind == "weights" and out.resolve() in (file.resolve(), with_suffix(file).resolve()):
            raise StoreError(
                f"{out} is an earlier delta, on which the new one stands: without it, it could not be applied.",
                "Give another file.",
            )
    bases = [one.manifest.fingerprint for one in found if one.kind == "weights"]
    if len(set(bases)) < len(bases):
        raise EditError(
            "Two of the earlier deltas were made for the same model, so that they are no chain.",
            "Make one of them with `indelible compose`, and go on from that.",
        )
    return found


def _together(before: list[Edit]) -> Edit | None:
    """All that is in the model: the sum of the updates, or the latest adapter, which holds those before it."""
    from indelible.edits.deltas.weights import WeightUpdate

    updates = [one for one in before if isinstance(one, WeightUpdate)]
    if before and not isinstance(before[-1], WeightUpdate):
        return before[-1]
    return reduce(add, updates) if updates else None


def _corpus(name: str) -> list[str]:
    from indelible.study.run.sources import corpus_texts

    return corpus_texts(name)


def _bystanders(facts: list[Fact], count: int, seed: int) -> list[Fact]:
    from indelible.facts.choose import choose_bystanders
    from indelible.facts.world import world_facts

    return choose_bystanders(world_facts(), facts, [], count, seed) if count else []
