"""``indelible diff``: what lies between two checkpoints, an edit or training? And what does one show alone?"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.options import AsJson, Trust, model_of
from indelible.cli.terminal import say

if TYPE_CHECKING:
    from indelible.care.weights.difference import Difference
    from indelible.care.weights.spectrum import Spectrum

EXAMPLES = (
    "Example: `indelible diff smollm2-135m a-model-from-somewhere`",
    "What one shows alone: `indelible diff a-model-from-somewhere`",
)
SHOWN = 12


def diff(
    before: Annotated[
        str, typer.Argument(help="The model as it was: a name, a folder or a hub id. Or the only one there is.")
    ],
    after: Annotated[str | None, typer.Argument(help="The model as it is, of the same architecture.")] = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Say where the weights of two checkpoints differ, and whether an edit stands out. No facts are needed.

    Training moves matrices of a kind about equally far in all layers; an edit moves a few of them much farther and in
    few directions, also where the model was trained since. What is spread evenly over all layers, as an adapter, looks
    like training here.

    One checkpoint alone shows little: a strong edit of one fact makes the rows of its matrix alike.
    """
    from indelible.care.weights.difference import diff
    from indelible.care.weights.spectrum import spectrum
    from indelible.watching import counting

    first = model_of(before, trust)
    found = spectrum(first, jobs=counting) if after is None else diff(first, model_of(after, trust), jobs=counting)
    if as_json:
        say(json.dumps(found.record(), indent=2))
        return
    _show(found)
    say(found.in_words)


def _show(found: Difference | Spectrum) -> None:
    from indelible.care.weights.spectrum import Spectrum
    from indelible.cli.display import show_table

    if isinstance(found, Spectrum):
        most = sorted(found.rows, key=lambda one: -one.times)[:SHOWN]
        lines = [[one.parameter, f"{one.share:.1%}", f"{one.times:.2f}"] for one in most]
        show_table(["matrix", "of its rows in one direction", "times its neighbours'"], lines)
        say(f"{len(lines)} of {len(found.rows)} layers are shown, those whose rows are most alike.")
        return
    moved = sorted((one for one in found.matrices if one.moved), key=lambda one: (not one.stands_out, -one.moved))
    rows = [
        [one.parameter, f"{one.moved:.2%}", f"{one.top:.3g}", _times(one.times), str(one.directions or "")]
        for one in moved[:SHOWN]
    ]
    if rows:
        show_table(["matrix", "moved by", "most in one direction", "times its kind's", "directions"], rows)
        say(f"{len(rows)} of {len(found.matrices)} matrices in layers are shown, those that moved most.")
    if found.unlike:
        say(f"Only in one of them, or of another shape: {', '.join(found.unlike[:SHOWN])}")


def _times(value: float | None) -> str:
    if value is None:
        return ""
    return "alone" if math.isinf(value) else f"{value:.1f}"
