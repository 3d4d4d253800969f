"""``indelible compose``: several deltas in one."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.deltas import file_for
from indelible.errors import ConfigError, EditError
from indelible.numbers.words import counted


def compose(
    model: Annotated[str, typer.Argument(help="The model that the first delta was made for.")],
    deltas: Annotated[list[Path], typer.Argument(help="Deltas of that model, or a chain in its order.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File for the sum.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Add deltas up: made side by side for one model, or each for what the ones before it leave."""
    from indelible.edits.deltas.delta import Edit
    from indelible.edits.deltas.weights import WeightUpdate
    from indelible.models.load import load

    if len(deltas) < 2:
        raise ConfigError(f"{len(deltas)} delta was given.", "Give at least two.")
    out = file_for(out, force)
    updates: list[WeightUpdate] = []
    for file in deltas:
        edit = Edit.load(file)
        if not isinstance(edit, WeightUpdate):
            raise EditError(f"{file} is a {edit.kind}, which changes no weights.", "Compose deltas of weights.")
        updates.append(edit)
    together = reduce(add, updates).sealed(load(model).model)
    together.save(out)
    typer.echo(f"Delta: {out} ({counted(len(together.facts), 'fact')} out of {counted(len(deltas), 'delta')})")
