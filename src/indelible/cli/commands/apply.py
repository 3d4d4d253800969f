"""``indelible apply``: write an edited copy of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.errors import EditError
from indelible.files import check_free
from indelible.numbers.words import counted


def apply(
    model: Annotated[str, typer.Argument(help="The model that the delta was made for.")],
    delta: Annotated[Path, typer.Argument(help="File written by `indelible edit`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the edited model.")],
) -> None:
    """Add a delta to a model and write the result as an ordinary transformers folder (float32).

    A checkpoint in bfloat16 or float16 is read as float32, which changes none of its values, and the edited copy is
    written in float32: twice the bytes, for the edit is exact in that precision only.
    """
    from indelible.edits.deltas.delta import Edit
    from indelible.models.load import load
    from indelible.models.save import save_model

    check_free(out)
    edit = Edit.load(delta)
    if edit.kind != "weights":
        raise EditError(
            f"A {edit.kind} changes no weights, so that no checkpoint can hold it.",
            "Put its text before each prompt, in Python: Edit.load(path).context + prompt."
            if edit.context
            else "Apply it in Python: Edit.load(path).apply(model).",
        )
    loaded = load(model)
    edit.apply(loaded.model)
    save_model(loaded.model, loaded.tokenizer, out)
    typer.echo(
        f"Edited model: {out} ({counted(len(edit.facts), 'fact')}; AutoModelForCausalLM.from_pretrained loads it)"
    )
