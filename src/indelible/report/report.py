"""The report: one HTML file with the answer first and the evidence below, to be read anywhere and mailed to anyone.

It asks nothing of the network and can be read in full without its script, which searches and sorts the facts, copies
tables and hands out figures.
Beside it go the same figures and tables as files for papers. All of it follows from the exhibits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indelible.files import whole_folder
from indelible.report.drawing.style import save
from indelible.report.exhibit import Data, Grid, Part, Picture, shown, walk
from indelible.report.latex import latex
from indelible.report.masthead import title
from indelible.report.page import render, write_page
from indelible.report.run import Run
from indelible.report.spreadsheet import write_csv


def write_report(path: Path, run: Run) -> Path:
    """Write the report of a run into a folder that exists, and beside it ``figures/`` and ``tables/``, which are
    replaced; the same run gives the same bytes.

    Raises:
        StoreError: if a file cannot be written.
        DataError: if a table lacks a column.
    """
    parts = shown(run)
    write_page(path, render("report.html.j2", parts, title=title(run), name=run.name, as_published=run.as_published))
    write_files(path.parent, parts)
    return path


def write_files(folder: Path, parts: Sequence[Part]) -> None:
    """Write ``figures/*.svg`` and ``*.pdf``, ``tables/*.csv`` (plain numbers, fractions) and ``*.tex`` (what stands in
    papers); what stood there before is replaced."""
    with whole_folder(folder / "figures", replace=True) as figures:
        for part in walk(parts):
            if isinstance(part, Picture) and part.file:
                figure = part.draw()
                for ending in ("svg", "pdf"):
                    save(figure, figures / f"{part.file}.{ending}")
    with whole_folder(folder / "tables", replace=True) as tables:
        for part in walk(parts):
            if isinstance(part, Data):
                write_csv(tables / f"{part.file}.csv", part.frame)
            elif isinstance(part, Grid) and part.file:
                (tables / f"{part.file}.tex").write_text(latex(part), encoding="utf-8", newline="\n")
