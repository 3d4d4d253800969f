"""``indelible diff``: what lies between two checkpoints, an edit or training?"""

from __future__ import annotations

import json
import math
from typing import Annotated

import typer

from indelible.cli.options import AsJson, Trust, model_of

EXAMPLES = ("Example: `indelible diff smollm2-135m a-model-from-somewhere`",)
SHOWN = 12


def diff(
    before: Annotated[str, typer.Argument(help="The model as it was: a name, a folder or a hub id.")],
    after: Annotated[str, typer.Argument(help="The model as it is, of the same architecture.")],
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Say where the weights of two checkpoints differ, and whether an edit stands out. No facts are needed.

    Training moves matrices of a kind about equally far in all layers; an edit moves a few of them much farther and in
    few directions, also where the model was trained since. What is spread evenly over all layers, as an adapter, looks
    like training here.
    """
    from indelible.care import difference
    from indelible.cli.display import show_table
    from indelible.watching import counting

    found = difference.diff(model_of(before, trust), model_of(after, trust), jobs=counting)
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2))
        return
    moved = sorted((one for one in found.matrices if one.moved), key=lambda one: (not one.stands_out, -one.moved))
    rows = [
        [one.parameter, f"{one.moved:.2%}", f"{one.top:.3g}", _times(one.times), str(one.directions or "")]
        for one in moved[:SHOWN]
    ]
    if rows:
        show_table(["matrix", "moved by", "most in one direction", "times its kind's", "directions"], rows)
        typer.echo(f"{len(rows)} of {len(found.matrices)} matrices in layers are shown, those that moved most.")
    if found.unlike:
        typer.echo(f"Only in one of them, or of another shape: {', '.join(found.unlike[:SHOWN])}")
    typer.echo(found.in_words)


def _times(value: float | None) -> str:
    if value is None:
        return ""
    return "alone" if math.isinf(value) else f"{value:.1f}"
