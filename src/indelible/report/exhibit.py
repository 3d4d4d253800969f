"""What an exhibit is: one thing that a report shows, from its data to its picture, its table and its place on the page.

An exhibit is a function that looks at a run and yields parts in the order of the page. HTML, figures, tables and data
files follow from the parts: a `Picture` is drawn on the page and written as SVG and PDF, a `Grid` stands on the page
and is written as LaTeX, `Data` is written as CSV. Whatever is not told a file name stays on the page alone.

    @exhibit("losses", place=65)
    def losses(run: Run) -> Iterator[Part]:
        frame = run.answers.rows.groupby("arm")["success"].mean().reset_index()
        yield Heading("What was lost")
        yield Grid(frame, "Losses by arm", file="losses")
        yield Data("losses", frame)

Each built-in exhibit is a file of `indelible.report.exhibits`; other distributions add theirs through the entry-point
group `indelible.exhibits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from indelible.errors import IndelibleError, PluginError
from indelible.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from indelible.report.run import Run


class Part:
    """Something that an exhibit yields; ``kind`` names what puts it on the page (templates/parts.html.j2)."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Heading(Part):
    """A heading, with the anchor that leads to it; of level 2, or of 3 inside an exhibit."""

    kind = "heading"
    text: str
    anchor: str = ""
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Words(Part):
    """A paragraph."""

    kind = "words"
    text: str
    look: Literal["", "note", "answer", "banner"] = ""


@dataclass(frozen=True)
class Html(Part):
    """What needs elements of its own: a template (jinja2, everything escaped) and what it is filled with."""

    kind = "html"
    template: str
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture(Part):
    """A figure.

    Attributes:
        draw: makes it; called once for the page and once for the files.
        description: what a reader who can't see it should be told.
        title: the words above it on the page.
        file: its name among figures/, without ending, if it is to stand there.
        narrow: makes it for a phone, where the whole width would leave its words too small to be read.
        data: what is drawn, as plain numbers, for who downloads it from the page.
    """

    kind = "picture"
    draw: Callable[[], Figure]
    description: str
    title: str = ""
    file: str = ""
    narrow: Callable[[], Figure] | None = None
    data: pd.DataFrame | None = None


@dataclass(frozen=True)
class Grid(Part):
    """A table for readers.

    Attributes:
        frame: cells as text; rows go by their first column.
        label: what it is, in words: its caption in papers, and its name for who can't see it.
        file: its name among tables/, without ending, if it is to stand there.
        look: "numbers" do not wrap; "pairs" are of a name and what it stands for.
        data: the same as plain numbers, for who downloads it from the page; else the cells are.
    """

    kind = "grid"
    frame: pd.DataFrame
    label: str
    file: str = ""
    look: Literal["numbers pinned", "pinned", "pairs"] = "numbers pinned"
    data: pd.DataFrame | None = None


@dataclass(frozen=True)
class Data(Part):
    """A table as plain numbers (fractions), for files only."""

    kind = "data"
    file: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Group(Part):
    """Parts that stand together: pictures side by side (a "pair" as wide as the page), or what goes to files and is not
    on the page."""

    kind = "group"
    parts: Sequence[Part]
    look: Literal["panels", "pair", "files"] = "panels"


@dataclass(frozen=True)
class Fold(Part):
    """Parts that a reader can unfold, with a note beside their title; "printed" ones unfold for the printer."""

    kind = "fold"
    title: str
    parts: Sequence[Part]
    note: str = ""
    look: Literal["", "printed"] = ""


Show = Callable[["Run"], Iterable[Part]]


@dataclass(frozen=True)
class Exhibit:
    """A function that shows something of a run, and its place: the page goes from the lowest to the highest."""

    place: float
    show: Show


EXHIBITS: Registry[Exhibit] = Registry("exhibit", "indelible.report.exhibits", group="indelible.exhibits")


def exhibit(name: str, *, place: float) -> Callable[[Show], Show]:
    """Decorator that files a function as an exhibit, with its place on the page: the answer has 0, what prints after
    the second page begins at 20, what was asked and said has 80, how to run it again 100."""

    def file(show: Show) -> Show:
        EXHIBITS.register(name)(Exhibit(place, show))
        return show

    return file


def numbers(
    frame: pd.DataFrame, label: str, file: str, title: str = "The numbers", data: pd.DataFrame | None = None
) -> Fold:
    """A table that a reader can unfold below its picture; arguments as of `Grid`."""
    return Fold(title, [Grid(frame, label, file, data=data)], look="printed")


def texts(write: Callable[..., str], frame: pd.DataFrame, *columns: str) -> list[str]:
    """What a function of `indelible.numbers.words` writes of each line of a table."""
    return [write(*line) for line in frame[list(columns)].to_numpy()]


def shown(run: Run) -> list[Part]:
    """What all exhibits show of a run, in the order of the page; whatever one of another distribution raises becomes a
    PluginError."""
    parts: list[Part] = []
    for name in sorted(EXHIBITS, key=lambda name: EXHIBITS.get(name).place):
        show = EXHIBITS.get(name).show
        try:
            parts += show(run)
        except Exception as error:
            if isinstance(error, IndelibleError) or show.__module__.startswith("indelible."):
                raise
            raise PluginError(
                f"The exhibit {name!r} of {show.__module__} cannot be made: {type(error).__name__}: {error}.",
                "Mend or uninstall it, then give the folder to `indelible report`: all results are kept.",
            ) from error
    return parts


def walk(parts: Iterable[Part]) -> Iterator[Part]:
    """Parts and all that they hold."""
    for part in parts:
        yield part
        yield from walk(getattr(part, "parts", ()))
