"""The tables that the commands print: the result, on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from indelible.numbers.words import headline
from indelible.showing import visible

WIDE = 200


def show_headline(summary: Sequence[Mapping[str, Any]]) -> None:
    """Print the one table of a study to stdout: an arm per line, or per column where the terminal is narrow."""
    columns, rows = headline(summary)
    console = _stdout()
    unbounded = console.options.update(width=WIDE)
    if console.measure(_table(columns, rows), options=unbounded).maximum <= console.width:
        show_table(columns, rows)
    else:
        first, *others = zip(columns, *rows, strict=True)
        show_table(first, others)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout, as wide as the terminal, or as it needs where there is none."""
    _stdout().print(_table(columns, rows), markup=False, highlight=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*map(visible, columns), box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(visible, row))
    return table


def _stdout() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)
