"""``indelible apply``: write an edited copy of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import Trust, model_of
from indelible.cli.terminal import say
from indelible.numbers.words import counted

EXAMPLES = ("Example: `indelible apply smollm2-135m deltas/mine -o edited`",)


def apply(
    model: Annotated[str, typer.Argument(help="The model that the delta was made for.")],
    delta: Annotated[Path, typer.Argument(help="File written by `indelible edit`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the edited model.")],
    trust: Trust = False,
) -> None:
    """Add a delta to a model and write the result as an ordinary transformers folder (float32).

    A checkpoint in bfloat16 or float16 is read as float32, which changes none of its values, and the edited copy is
    written in float32: twice the bytes, for the edit is exact in that precision only.
    """
    from indelible.care.checkpoints import write_edited
    from indelible.edits.deltas.adapter import read_delta

    edit = read_delta(delta)
    write_edited(model_of(model, trust), edit, out)
    facts = counted(len(edit.facts), "fact")
    say(f"Edited model: {out} ({facts}; AutoModelForCausalLM.from_pretrained loads it)")
