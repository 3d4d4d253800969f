"""Prose out of a dump of a MediaWiki: paragraphs in plain words, by article and section.

What is no prose goes whole: tables, lists, captions, footnotes, templates but a few that stand for words in a sentence,
sections of references. What is left of the markup is taken off. Articles of a dump are XML, their text is wikitext.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree

MIN_WORDS = 12
"""Shorter lines are remarks and remains rather than paragraphs."""

NO_PROSE = re.compile(
    r"<!--.*?-->|<ref[^<>]*/>|"
    r"<(ref|gallery|table|div|timeline|source|syntaxhighlight|pre|code|imagemap|score|hiero)\b[^<>]*>.*?</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
FORMULA = re.compile(r"<(?:math|chem)\b|\{\{(?:math|chem|val|frac|sfrac|nuclide\w*|simplenuclide\w*)\|", re.IGNORECASE)
"""What a sentence makes no sense without, and cannot be put in words."""
TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
TABLE = re.compile(r"\{\|(?:(?!\{\|).)*?\|\}", re.DOTALL)
LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
OUTWARD = re.compile(r"\[(?:https?:|ftp:)?//[^\s\]]*\s*([^\]]*)\]|https?://\S+")
HEADING = re.compile(r"^(={2,6})\s*(.*?)\s*\1\s*$")
ASIDE = re.compile(
    r"^(?:see also|references|notes|footnotes|citations|sources|external links|further reading|bibliography|"
    r"works|filmography|discography|gallery|publications|selected .*|.* and references|notes .*|primary sources|"
    r"secondary sources|literature)$",
    re.IGNORECASE,
)
RANGES = {"to", "and", "or", "by", "x", "-", "\u2013", "to(-)", "and(-)", "+/-"}
"""What stands between two numbers of one measure."""
WORDS_OF = {"lang", "transl", "nowrap", "small", "smaller", "angbr", "vanchor", "nihongo", "quote", "abbr", "sc"}
"""Templates that put words of theirs into the sentence."""
LAST_OF = {"lang", "transl"}
"""Those whose words come last, after a language's code."""
END = re.compile(r"[.!?][\"'\u2019\u201d)]*$")
MENDED = (
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"<[^<>]*>"), ""),
    (re.compile(r"\(\s*(?:[,;:/]\s*)+"), "("),
    (re.compile(r"(?:\s*[,;:/])+\s*\)"), ")"),
    (re.compile(r"\(\s*(?:or|and)?\s*\)|\[\s*\]"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r"(?<=[(\[]) | (?=[,.;:!?)\]])"), ""),
    (re.compile(r"^[,;:.)\s]+|(?<=,),+"), ""),
)
"""What is taken off, and what that leaves of brackets and spaces."""


def articles(dump: bytes) -> Iterator[tuple[str, str]]:
    """Titles and wikitext of all articles of a dump (XML), in their order, without redirects and lists."""
    for page in ElementTree.fromstring(dump):
        space = page.tag.removesuffix("page")
        title, text = page.findtext(f"{space}title", ""), page.findtext(f"{space}revision/{space}text")
        listed = title.startswith("List of ") or title.endswith("(disambiguation)")
        if text and not listed and page.findtext(f"{space}ns") == "0" and page.find(f"{space}redirect") is None:
            yield title, text


def article_prose(wikitext: str) -> Iterator[tuple[int, str]]:
    """The paragraphs of one article, each after the number of its section, which is 0 before the first heading."""
    section, aside = 0, False
    for line in _without_blocks(wikitext).splitlines():
        if heading := HEADING.match(line):
            top = len(heading[1]) == 2
            section += top
            aside = bool(ASIDE.match(heading[2])) or (aside and not top)
        elif not aside and line[:1] not in ("", " ", *":;|!{}<&-="):
            text = _plain(line.lstrip("*# "))
            if is_paragraph(text) and not set(text) & set("{}[]|<>="):
                yield section, text


def is_paragraph(text: str) -> bool:
    """Whether a line is long enough for a paragraph, and ends as a sentence does."""
    return len(text.split()) >= MIN_WORDS and END.search(text) is not None


def _without_blocks(text: str) -> str:
    """The text without what stands between lines or takes several: footnotes, tables, templates."""
    text = NO_PROSE.sub("", text)
    text = "\n".join("" if FORMULA.search(line) else line for line in text.splitlines())
    return _until_same(TABLE, "", _until_same(TEMPLATE, _in_words, text))


def _plain(line: str) -> str:
    line = OUTWARD.sub(r"\1", _until_same(LINK, _linked, line))
    line = html.unescape(html.unescape(line)).replace("\u00a0", " ")
    for pattern, instead in MENDED:
        line = pattern.sub(instead, line)
    return line.strip()


def _until_same(pattern: re.Pattern[str], instead: object, text: str) -> str:
    """What is innermost first, as often as there is something inside something."""
    while True:
        text, times = pattern.subn(instead, text)  # type: ignore[call-overload]
        if not times:
            return text


def _linked(found: re.Match[str]) -> str:
    """What a link shows; nothing for files, categories and the same article in other languages."""
    target, _, shown = found[1].partition("|")
    if ":" in target and not target.startswith(":"):
        return ""
    return (shown or target.lstrip(":")).rpartition("|")[2]


def _in_words(found: re.Match[str]) -> str:
    """What a template says in a sentence: a measure, or words that it sets in some way; nothing where it says none."""
    name, *parts = (part.strip() for part in found[1].split("|"))
    name, given = name.lower(), [part for part in parts if not re.match(r"[\w ]*=", part)]
    if name in ("convert", "cvt") and given:
        number, rest = given[0], given[1:]
        while len(rest) > 1 and rest[0] in RANGES:
            number, rest = f"{number} {rest[0]} {rest[1]}", rest[2:]
        return f"{number} {rest[0]}" if rest else number
    if name == "as of" and given:
        return f"As of {given[0]}"
    if name in WORDS_OF and given:
        return given[-1] if name in LAST_OF else given[0]
    return "" if name != "'s" else "'s"
