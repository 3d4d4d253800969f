"""``indelible revert``: take a delta out of an edited model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.errors import EditError
from indelible.files import check_free


def revert(
    model: Annotated[str, typer.Argument(help="The edited model: a folder or a hub id.")],
    delta: Annotated[Path, typer.Argument(help="The delta that is in it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the reverted model.")],
    approximately: Annotated[
        bool, typer.Option("--approximately", help="Subtract the delta even from weights that were trained since.")
    ] = False,
) -> None:
    """Take a delta out of an edited model, and give back the original bytes.

    The weights are those of before the edit bit for bit, in float32. Where the original checkpoint was in bfloat16 or
    float16, they have its values, and casting them gives back its bytes. An edited model that was saved in another
    precision than float32 is no longer as the edit left it.
    """
    from indelible.edits.deltas.delta import Edit
    from indelible.edits.deltas.weights import WeightUpdate
    from indelible.models.fingerprint import fingerprint
    from indelible.models.load import load
    from indelible.models.save import save_model

    check_free(out)
    edit = Edit.load(delta)
    if not isinstance(edit, WeightUpdate):
        raise EditError(f"A {edit.kind} changes no weights.", "There is nothing to revert.")
    loaded = load(model)
    there = edit.presence(loaded.model).share if approximately and edit.manifest.seal is not None else None
    edit.revert(loaded.model, approximately=approximately)
    save_model(loaded.model, loaded.tokenizer, out)
    if fingerprint(loaded.model) == edit.manifest.fingerprint:
        typer.echo(f"Reverted to the original bytes (float32): {out}")
    elif approximately:
        told = "" if there is None else f" (projection on the delta before: {there:.1%}; 100% all of it, 0% nothing)"
        typer.echo(f"Reverted approximately: {out}{told}")
    else:
        typer.echo(
            "Reverted: the edited parameters are as they were before the edit; other weights, or the settings, changed"
            f" since: {out}"
        )
