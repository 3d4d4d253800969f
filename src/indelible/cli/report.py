"""``indelible report``: write a run's report anew from its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/quick.")]) -> None:
    """Write report.html and summary.json again from the tables of a finished study."""
    from indelible.study.results import rewrite_report

    typer.echo(f"Report: {rewrite_report(run)}")
