"""Tables for papers: booktabs and nothing else, everything escaped, as wide as the text of LaTeX's article class.

A table that is wider is set as several that repeat its first column, one below the other or, where a page cannot hold
them all, as floats of their own; so is one that is longer than a page. Long texts are wrapped.
Widths are reckoned from Computer Modern at 8 points (`\\footnotesize`), in which no figure is wider than 4.25 points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from textwrap import wrap

from indelible.report.exhibit import Grid

TEXT_WIDTH = 345.0
"""Points of the text of the article class at 10 points."""
CHARACTER, SEPARATION = 4.5, 6.0
"""Points of a character on average and a little more, and between two columns (twice \\tabcolsep)."""
LONGEST, NARROWEST = 34, 12
"""Characters of a column of text and of a heading before they are wrapped."""
MOST_LINES = 50
"""On a page."""
TYPOGRAPHY = str.maketrans(
    {
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\N{MINUS SIGN}": "$-$",
        "\N{EN DASH}": "--",
        "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
        "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        "\N{MIDDLE DOT}": r"$\cdot$",
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{one: rf"\{one}" for one in "&%$#_{}"},
    }
)
NUMBER = re.compile(r"^(?:[+<\N{MINUS SIGN}]?\s?\d|\N{EN DASH}$)")


def latex(grid: Grid) -> str:
    """A table as a float for papers, or as several, no wider than `TEXT_WIDTH`."""
    cells = grid.frame.astype(str).map(lambda cell: " ".join(cell.split()))
    columns = [_Column(str(name), cells.iloc[:, place].tolist()) for place, name in enumerate(cells)]
    pages = list(_pages(columns))
    lines = [max([len(cell) // LONGEST + 1 for cell in row], default=1) for row in cells.to_numpy()]
    parts = [_tabular(page, rows) for rows in _chunks(lines) for page in pages]
    if sum(lines) * len(pages) <= MOST_LINES:
        parts = ["\n\n\\medskip\n".join(parts)]
    floats = ["% \\usepackage{booktabs}"]
    for number, part in enumerate(parts, 1):
        caption = escaped(grid.label) + (f" ({number} of {len(parts)})" if len(parts) > 1 else "")
        label = grid.file if number == 1 else f"{grid.file}-{number}"
        head = ["\\begin{table}", "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}"]
        floats += [*head, f"\\caption{{{caption}}}", f"\\label{{tab:{label}}}", part, "\\end{table}"]
    return "\n".join([*floats, ""])


def _chunks(lines: Sequence[int]) -> list[range]:
    """Rows that a page can hold, by how many lines each takes."""
    starts, taken = [0], 0
    for row, needed in enumerate(lines):
        if taken + needed > MOST_LINES and row > starts[-1]:
            starts.append(row)
            taken = 0
        taken += needed
    return [range(*ends) for ends in pairwise([*starts, len(lines)])]


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(TYPOGRAPHY)


class _Column:
    """One column: its cells and heading as LaTeX, how it is set, and how wide it comes out."""

    def __init__(self, name: str, cells: Sequence[str]) -> None:
        self.flush = len(cells) > 0 and all(NUMBER.match(cell) for cell in cells)
        longest = max(map(len, cells), default=0)
        width = longest if self.flush else min(longest, LONGEST)
        heading = wrap(name, max(width, NARROWEST), break_long_words=False) or [""]
        self.cells, side = [escaped(cell) for cell in cells], "r" if self.flush else "l"
        self.heading = escaped(heading[0])
        if len(heading) > 1:
            stacked = r" \\ ".join(map(escaped, heading))
            self.heading = rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}"
        characters = max(width, *map(len, heading))
        wrapped = not self.flush and longest > LONGEST
        points = CHARACTER * characters
        self.setting = f"p{{{points:.0f}pt}}" if wrapped else side
        self.points = points + SEPARATION


def _pages(columns: Sequence[_Column]) -> Iterator[list[_Column]]:
    """Columns in tables that fit, each of which begins with the first."""
    first, *rest = columns
    page = [first]
    for column in rest:
        if len(page) > 1 and sum(one.points for one in page) + column.points > TEXT_WIDTH:
            yield page
            page = [first]
        page.append(column)
    yield page


def _tabular(columns: Sequence[_Column], rows: range) -> str:
    settings = "".join(column.setting for column in columns)
    body = [_row([column.cells[place] for column in columns]) for place in rows]
    lines = [_row([column.heading for column in columns]), "\\midrule", *body, "\\bottomrule", "\\end{tabular}"]
    return "\n".join([f"\\begin{{tabular}}{{{settings}}}", "\\toprule", *lines])


def _row(cells: Sequence[str]) -> str:
    # At the start of a row a bracket would be read as an argument of the \\ before it, and an asterisk as part of it.
    return re.sub(r"^([\[*])", r"{\1}", " & ".join(cells) + r" \\")
