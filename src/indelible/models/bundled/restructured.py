"""Prose out of documentation that is written in reStructuredText: paragraphs in plain words, by section.

Code, tables, images, comments and whatever else is no prose goes; the contents of notes and descriptions stay. Of
markup inside a line what it shows is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from indelible.models.bundled.wikitext import is_paragraph

UNDERLINE = re.compile(r"([=\-~^\"'`#*+:.<>_])\1{2,}")
DIRECTIVE = re.compile(r"\.\. (?:[\w:.+-]+)::")
NO_PROSE = re.compile(
    r"\.\. (?:code-block|sourcecode|code|literalinclude|console|image|figure|table|csv-table|list-table|toctree|"
    r"parsed-literal|highlight|index|math|raw|only|include|contents|module|currentmodule|snippet)::|"
    r"\.\. (?![\w:.+-]+::)"
)
"""Directives, and comments and targets, whose contents are no prose."""
ITEM = re.compile(r"(?:[*+-]|#\.|\d+[.)]|\([a-z\d]+\)) +")
ROLE = re.compile(r":[\w:.+-]+:`([^`]*)`")
TITLED = re.compile(r"([^<>]*\S)\s*<[^<>]*>$")
UNTITLED = re.compile(r":(?:ref|doc)(?:[\w:.+-]*):`[^`<]*`")
"""A reference that is shown as the title of what it refers to."""
INLINE = (
    (re.compile(r"``(.+?)``"), r"\1"),
    (re.compile(r"`([^`<>]*\S)\s*<[^<>]*>`__?"), r"\1"),
    (re.compile(r"`([^`]+)`(?:__?)?"), r"\1"),
    (re.compile(r"(?<!\w)([A-Za-z][\w.-]*)__?(?!\w)"), r"\1"),
    (re.compile(r"\*\*(.+?)\*\*|(?<![\w*])\*(?! )(.+?)(?<! )\*(?![\w*])"), r"\1\2"),
    (re.compile(r"\\(.)"), r"\1"),
    (re.compile(r"\s+"), " "),
)


def document_prose(text: str) -> Iterator[tuple[int, str]]:
    """The paragraphs of one document, each after the number of its section, which is 0 before the first title."""
    section, beyond = 0, -1
    for block, indent in _blocks(text):
        if beyond >= 0 and indent > beyond:
            continue
        beyond = -1
        if NO_PROSE.match(block[0]):
            beyond = indent
        elif DIRECTIVE.match(block[0]) or block[0].startswith(("|", "+-", "==", ">>>", ":")):
            continue
        elif len(block) > 1 and UNDERLINE.fullmatch(block[1]):
            section += 1
        else:
            if block[-1].endswith("::"):
                beyond = indent
            line = " ".join(block)
            line = line[found.end() :] if (found := ITEM.match(line)) else line
            plain = "" if UNTITLED.search(line) else _plain(line)
            if is_paragraph(plain):
                yield section, plain


def _blocks(text: str) -> Iterator[tuple[Sequence[str], int]]:
    """Lines that belong together, without their indentation, which follows: a paragraph, an item of a list, a title."""
    block: list[str] = []
    indent = 0
    for line in [*text.expandtabs(8).splitlines(), ""]:
        bare = line.strip()
        deep = len(line) - len(line.lstrip())
        starts = bool(block) and (ITEM.match(bare) is not None or deep < indent)
        if block and (not bare or starts or (len(block) == 1 and deep > indent and bool(DIRECTIVE.match(block[0])))):
            yield block, indent
            block = []
        if bare and not (not block and UNDERLINE.fullmatch(bare)):
            if not block:
                indent = deep
            block.append(bare)


def _plain(line: str) -> str:
    line = ROLE.sub(_shown, line)
    for pattern, instead in INLINE:
        line = pattern.sub(instead, line)
    return line.strip()


def _shown(found: re.Match[str]) -> str:
    """What a role shows: its title, the last part of a name after "~", or what stands there."""
    if titled := TITLED.match(found[1]):
        return titled[1]
    return found[1].rpartition(".")[2] if found[1].startswith("~") else found[1].lstrip("!")
