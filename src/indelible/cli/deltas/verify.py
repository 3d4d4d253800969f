"""``indelible verify``: is this edit in this model?"""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.options import AsJson, Junit, Trust, check_file, model_of, write_cases
from indelible.cli.terminal import say
from indelible.numbers.words import MISSING

if TYPE_CHECKING:
    from indelible.care.verify import Verification

EXAMPLES = (
    "Examples:",
    "`indelible verify my-fine-tuned-model deltas/mine`",
    "`indelible verify my-fine-tuned-model deltas/mine --require 0.9 --junit edits.xml` # in a pipeline",
)


def verify(
    model: Annotated[str, typer.Argument(help="Any model of the same kind: edited, trained since, or untouched.")],
    delta: Annotated[Path, typer.Argument(help="File written by `indelible edit`, or a LoRA adapter.")],
    require: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the facts that were taken that must be present."),
    ] = None,
    junit: Junit = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Say how much of a delta is in a model's weights, and which of its facts the model still answers.

    A fact is *present* where free generation begins with the new object, *weakened* where it does not but the new
    object is still more probable than the true one, and *gone* otherwise. One that is not answered now and was not
    right after the edit either is *not taken*: nothing has been lost. Held-out wordings, where the facts have any, are
    asked and counted as well. An edit that changes no weights is put in place first.

    The exit code is 1 if any fact is gone or, with `--require`, if fewer of those that were taken are present.
    """
    from indelible.care import verify as care
    from indelible.edits.deltas.adapter import read_delta
    from indelible.watching import counting

    if junit is not None:
        check_file(junit)
    found = care.verify(model_of(model, trust), read_delta(delta), jobs=counting)
    passes = found.passes(require)
    if junit is not None:
        write_cases(junit, "indelible verify", found.cases(require))
    if as_json:
        say(json.dumps({**found.record(), "passes": passes}, indent=2))
    else:
        _show(found)
        if require is not None:
            say(f"{require:.0%} required: {'met' if passes else 'not met'}")
    if not passes:
        raise typer.Exit(1)


def _show(found: Verification) -> None:
    from indelible.cli.display import show_table

    rows = [
        [
            prompt,
            new_object,
            state,
            f"{probability:.3f}",
            MISSING if isnan(margin) else f"{margin:+.1f}",
            " ".join(generated.split())[:40],
        ]
        for _, prompt, new_object, state, probability, margin, generated in found.to_frame().itertuples(index=False)
    ]
    show_table(["fact", "new object", "state", "probability", "margin", "the model says"], rows)
    counts = [f"{found.counts[state]} {state}" for state in ("present", "weakened", "gone")]
    if untaken := found.counts["not taken"]:
        counts.append(f"{untaken} not taken (not answered right after the edit either)")
    say(", ".join(counts))
    if found.held_out:
        right = sum(answer.success for answer in found.held_out)
        say(f"held-out wordings: {right} of {len(found.held_out)} are answered")
    say(f"weights: {found.in_words}")
