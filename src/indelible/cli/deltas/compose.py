"""``indelible compose``: several deltas in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import Force, Trust, delta_file, model_of
from indelible.cli.terminal import say
from indelible.numbers.words import counted

EXAMPLES = ("Example: `indelible compose smollm2-135m deltas/a deltas/b -o deltas/both`",)


def compose(
    model: Annotated[str, typer.Argument(help="The model that the first delta was made for.")],
    deltas: Annotated[list[Path], typer.Argument(help="Deltas of that model, or a chain in its order.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File for the sum.")],
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Add deltas up: made side by side for one model, or each for what the ones before it leave."""
    from indelible.care import checkpoints
    from indelible.edits.deltas.adapter import read_delta

    out = delta_file(out, force)
    together = checkpoints.compose(model_of(model, trust), [read_delta(delta) for delta in deltas])
    together.save(out)
    say(f"Delta: {out} ({counted(len(together.facts), 'fact')} out of {counted(len(deltas), 'delta')})")
