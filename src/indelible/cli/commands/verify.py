"""``indelible verify``: is this edit in this model?"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from transformers import PreTrainedModel

    from indelible.care.verify import Verified
    from indelible.edits.deltas.seal import Remains

NOT_TAKEN = "not taken"


def verify(
    model: Annotated[str, typer.Argument(help="Any model of the same kind: edited, trained since, or untouched.")],
    delta: Annotated[Path, typer.Argument(help="File written by `indelible edit`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say how much of a delta is in a model's weights, and which of its facts the model still answers.

    A fact is *present* where free generation begins with the new object, *weakened* where it does not but the new
    object is still more probable than the true one, and *gone* otherwise. One that is not answered now and was not
    right after the edit either is *not taken*: nothing has been lost. An edit that changes no weights is put in place
    first.
    """
    from indelible.care.verify import FactState, verify_facts
    from indelible.cli.display import counting, show_table
    from indelible.edits.deltas.delta import Edit
    from indelible.edits.deltas.weights import WeightUpdate
    from indelible.models.load import load

    edit = Edit.load(delta)
    loaded = load(model)
    presence = edit.presence(loaded.model) if isinstance(edit, WeightUpdate) else None
    with ExitStack() as stack:
        if presence is None:
            stack.enter_context(edit.installed(loaded.model))
        progress = stack.enter_context(counting("asking"))
        found = verify_facts(loaded.model, loaded.tokenizer, edit.facts, context=edit.context, progress=progress)
    states = [_state(one, edit.not_taken) for one in found]
    counts = Counter(states)
    if as_json:
        weights = None if presence is None else {**asdict(presence), "state": presence.state}
        shown = {"weights": weights, "facts": _rows(found, states), "counts": dict(counts)}
        typer.echo(json.dumps(shown, indent=2))
        return
    columns = ["fact", "new object", "state", "probability", "margin", "the model says"]
    show_table(
        columns,
        [
            [
                one.fact.text(),
                str(one.fact.new_object),
                state,
                f"{one.answer.probability:.3f}",
                f"{one.answer.margin:+.1f}",
                " ".join(one.answer.generated.split())[:40],
            ]
            for one, state in zip(found, states, strict=True)
        ],
    )
    counted = [f"{counts[state]} {state}" for state in get_args(FactState)]
    if counts[NOT_TAKEN]:
        counted.append(f"{counts[NOT_TAKEN]} {NOT_TAKEN} (not answered right after the edit either)")
    typer.echo(", ".join(counted))
    if presence is None:
        typer.echo(f"weights: none are changed by a {edit.kind}; it was put in place to ask")
    else:
        typer.echo(f"weights: {_said(presence, loaded.model)}")


def _state(one: Verified, not_taken: Collection[str]) -> str:
    """That of now, or "not taken" where the edit never had the fact answered; a delta may not know that."""
    return NOT_TAKEN if one.fact.id in not_taken and not one.answer.success else one.state


def _rows(found: Sequence[Verified], states: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "id": one.fact.id,
            "state": state,
            "generated": one.answer.generated,
            "probability": one.answer.probability,
            "margin": one.answer.margin,
        }
        for one, state in zip(found, states, strict=True)
    ]


def _said(presence: Remains, model: PreTrainedModel) -> str:
    """How much of the delta is in the weights, in words."""
    if presence.state == "exact":
        return "the delta is in them, bit for bit, and nothing else was done to these parameters"
    if presence.state == "absent":
        return "the delta is not in them: these parameters are bit for bit as before the edit"
    if presence.state == "partly":
        return _partly(presence.states, model)
    return (
        "neither as the edit left them nor as before: another delta, training or another precision changed them;"
        f" projection on the delta {presence.share:.1%} (100% all of it, 0% nothing)"
    )


def _partly(states: Mapping[str, str], model: PreTrainedModel) -> str:
    """Where the delta is and where it is not: layers, or parameters where one layer has both."""
    from indelible.models.layout import find_layout

    layer_of = find_layout(model).layer_of
    names = {state: [name for name, found in states.items() if found == state] for state in ("exact", "absent")}
    layers = {state: {layer_of(name) for name in those} for state, those in names.items()}
    if None in layers["exact"] | layers["absent"] or layers["exact"] & layers["absent"]:
        return f"partly: in {', '.join(names['exact'])}, not in {', '.join(names['absent'])}"
    inside, outside = (", ".join(sorted(map(str, those), key=int)) for those in layers.values())
    return f"partly: in layers {inside}, not in layers {outside}"
