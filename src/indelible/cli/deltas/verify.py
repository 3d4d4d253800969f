"""``indelible verify``: is this edit in this model?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import AsJson, Trust, model_of

EXAMPLES = ("Example: `indelible verify my-fine-tuned-model deltas/mine`",)


def verify(
    model: Annotated[str, typer.Argument(help="Any model of the same kind: edited, trained since, or untouched.")],
    delta: Annotated[Path, typer.Argument(help="File written by `indelible edit`.")],
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Say how much of a delta is in a model's weights, and which of its facts the model still answers.

    A fact is *present* where free generation begins with the new object, *weakened* where it does not but the new
    object is still more probable than the true one, and *gone* otherwise. One that is not answered now and was not
    right after the edit either is *not taken*: nothing has been lost. An edit that changes no weights is put in place
    first.
    """
    from indelible.care import verify as care
    from indelible.cli.display import counting, show_table
    from indelible.edits.deltas.delta import Edit

    found = care.verify(model_of(model, trust), Edit.load(delta), jobs=counting)
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2))
        return
    rows = [
        [prompt, new_object, state, f"{probability:.3f}", f"{margin:+.1f}", " ".join(generated.split())[:40]]
        for _, prompt, new_object, state, probability, margin, generated in found.frame().itertuples(index=False)
    ]
    show_table(["fact", "new object", "state", "probability", "margin", "the model says"], rows)
    counts = [f"{found.counts[state]} {state}" for state in ("present", "weakened", "gone")]
    if untaken := found.counts["not taken"]:
        counts.append(f"{untaken} not taken (not answered right after the edit either)")
    typer.echo(", ".join(counts))
    typer.echo(f"weights: {found.in_words}")
