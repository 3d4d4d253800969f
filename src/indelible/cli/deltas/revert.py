"""``indelible revert``: take a delta out of an edited model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import Trust, model_of
from indelible.cli.terminal import say

EXAMPLES = ("Example: `indelible revert edited deltas/mine -o original`",)


def revert(
    model: Annotated[str, typer.Argument(help="The edited model: a folder or a hub id.")],
    delta: Annotated[Path, typer.Argument(help="The delta that is in it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the reverted model.")],
    approximately: Annotated[
        bool, typer.Option("--approximately", help="Subtract the delta even from weights that were trained since.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Take a delta out of an edited model, and give back the original bytes.

    The weights are those of before the edit bit for bit, in float32. Where the original checkpoint was in bfloat16 or
    float16, they have its values, and casting them gives back its bytes. An edited model that was saved in another
    precision than float32 is no longer as the edit left it.
    """
    from indelible.care.checkpoints import write_reverted
    from indelible.edits.deltas.adapter import read_delta

    found = write_reverted(model_of(model, trust), read_delta(delta), out, approximately=approximately)
    if found.original:
        say(f"Reverted to the original bytes (float32): {out}")
    elif found.exact:
        say(
            "Reverted: the edited parameters are as they were before the edit; other weights, or the settings, changed"
            f" since: {out}"
        )
    else:
        told = f" (projection on the delta before: {found.share:.1%}; 100% all of it, 0% nothing)"
        say(f"Reverted approximately: {out}{'' if found.share is None else told}")
