"""``indelible verify``: is this edit in this model?"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer


def verify(
    model: Annotated[str, typer.Argument(help="Any model of the same kind: edited, trained since, or untouched.")],
    delta: Annotated[Path, typer.Argument(help="Folder written by `indelible edit`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say how much of a delta is in a model's weights, and which of its facts the model still answers.

    A fact is *present* where free generation begins with the new object, *weakened* where it does not but the new
    object is still more probable than the true one, and *gone* otherwise. An edit that changes no weights is put in
    place first.
    """
    from indelible.cli.display import counting, show_table
    from indelible.edits.edit import Edit
    from indelible.edits.update import WeightUpdate
    from indelible.models.load import load
    from indelible.probing.verify import verify_facts

    edit = Edit.load(delta)
    loaded = load(model)
    presence = edit.presence(loaded.model) if isinstance(edit, WeightUpdate) else None
    with ExitStack() as stack:
        if presence is None:
            stack.enter_context(edit.installed(loaded.model))
        progress = stack.enter_context(counting("asking"))
        found = verify_facts(loaded.model, loaded.tokenizer, edit.facts, progress=progress)
    counts = Counter(one.state for one in found)
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "id": one.fact.id,
                "state": one.state,
                "generated": one.answer.generated,
                "probability": one.answer.probability,
                "margin": one.answer.margin,
            }
            for one in found
        ]
        weights = None if presence is None else {**asdict(presence), "state": presence.state}
        typer.echo(json.dumps({"weights": weights, "facts": rows, "counts": dict(counts)}, indent=2))
        return
    columns = ["fact", "new object", "state", "probability", "margin", "the model says"]
    show_table(
        columns,
        [
            [
                one.fact.text(),
                str(one.fact.new_object),
                one.state,
                f"{one.answer.probability:.3f}",
                f"{one.answer.margin:+.1f}",
                one.answer.generated.strip()[:40],
            ]
            for one in found
        ],
    )
    typer.echo(", ".join(f"{counts[state]} {state}" for state in ("present", "weakened", "gone")))
    if presence is None:
        typer.echo(f"weights: none are changed by a {edit.kind}; it was put in place to ask")
    else:
        said = {
            "exact": "the delta is in them, bit for bit, and nothing else was done to these parameters",
            "absent": "the delta is not in them: these parameters are bit for bit as before the edit",
            "changed": f"changed since; {presence.share:.1%} of the delta is still in them",
        }
        typer.echo(f"weights: {said[presence.state]}")
