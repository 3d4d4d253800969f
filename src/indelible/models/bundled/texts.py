"""Real texts for training, rewards and covariances, out of pinned archives of the package index (see fetch.py).

Every reader fetches its archive when it is first asked for, or each time where the cache cannot be written: DataError
where the index does not answer.
"""

from __future__ import annotations

import bz2
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from indelible.errors import DataError
from indelible.files import unkept
from indelible.models.bundled import restructured, wikitext
from indelible.models.bundled.fetch import Archive, cache_folder, fetched, is_damaged, kept_in_cache

PROSE = Archive(
    package="llamafactory",
    version="0.9.5",
    sha256="1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    member="llamafactory-0.9.5/data/",
    licence="Apache-2.0",
    wheel=False,
    files=("c4_demo.jsonl", "wiki_demo.txt", "alpaca_en_demo.json", "dpo_en_demo.json"),
)

REVIEWS = Archive(
    package="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    member="hutto_ICWSM_2014/",
    licence="MIT; asks for a citation of Hutto & Gilbert, VADER, ICWSM 2014",
    wheel=False,
    files=("movieReviewSnippets_GroundTruth.txt",),
)

ARTICLES = Archive(
    package="gensim",
    version="4.3.3",
    sha256="d662bf96e3d741b6ab61a54be842a7cbf5e45193008b2f4225c758cafd7f9cdc",
    member="gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    licence="CC BY-SA 3.0, by the authors of the Wikipedia articles; the package LGPL-2.1",
    wheel=True,
    platform="manylinux2014_x86_64",
)

MANUAL = Archive(
    package="django",
    version="5.2.8",
    sha256="23254866a5bb9a2cfa6004e8b809ec6246eba4b58a7589bc2772f1bcc8456c7f",
    member="django-5.2.8/docs/",
    licence="BSD-3-Clause",
    wheel=False,
)

CLEANING = 1
"""How markup is taken off articles and manual; raised when the same archives come to give other paragraphs."""


def web_text() -> list[str]:
    """300 web documents (a sample of C4), for training and perplexity."""
    lines = _kept(PROSE, "c4_demo.jsonl").splitlines()
    return [json.loads(line)["text"] for line in lines if line.strip()]


def encyclopedia_text(passage_words: int = 100) -> list[str]:
    """Thirty Wikipedia articles in passages of so many words, some 130 tokens, white space made single.

    For covariances: articles take turns (first passages first), so that a reader who stops early has seen all of them.
    """
    articles = [article.split() for article in _kept(PROSE, "wiki_demo.txt").splitlines()]
    cuts = range(0, max(map(len, articles), default=0), passage_words)
    return [" ".join(words[at : at + passage_words]) for at in cuts for words in articles if at < len(words)]


def instructions() -> list[dict[str, str]]:
    """999 instructions of the Alpaca kind: ``instruction``, ``input`` (may be empty), ``output``."""
    return cast(list[dict[str, str]], json.loads(_kept(PROSE, "alpaca_en_demo.json")))


def preferences() -> list[dict[str, Any]]:
    """300 conversations (``conversations``, turns with ``from`` and ``value``) and the two turns that may end each:
    ``chosen`` and ``rejected``."""
    return cast(list[dict[str, Any]], json.loads(_kept(PROSE, "dpo_en_demo.json")))


def film_reviews() -> list[tuple[float, str]]:
    """10,605 snippets of film reviews, each after the mean rating of some fifteen to twenty people: -4 (extremely
    negative) to 4 (extremely positive). Hutto & Gilbert, VADER, ICWSM 2014."""
    rows = [line.split("\t") for line in _kept(REVIEWS, REVIEWS.files[0]).split("\n") if line.strip()]
    return [(float(rating), snippet) for _, rating, snippet in rows]


def article_sections() -> dict[str, list[str]]:
    """95 Wikipedia articles as of 2016, from "A" to "Azerbaijan": section -> its paragraphs, some 525,000 tokens."""

    def articles(packed: bytes) -> Iterator[tuple[str, str]]:
        return wikitext.articles(bz2.decompress(_member(packed, ARTICLES.member, ARTICLES)))

    return _sections(ARTICLES, articles, wikitext.article_prose)


def manual_sections() -> dict[str, list[str]]:
    """Django's manual and release notes: section -> its paragraphs, some 575,000 tokens."""

    def documents(packed: bytes) -> Iterator[tuple[str, str]]:
        found = _members(packed, lambda name: name.startswith(MANUAL.member) and name.endswith(".txt"))
        texts = sorted((name.removeprefix(MANUAL.member), text.decode()) for name, text in found.items())
        return (
            (name.removesuffix(".txt"), text) for name, text in texts if not name.startswith("_")
        )  # a theme's licence

    return _sections(MANUAL, documents, restructured.document_prose)


def _sections(
    archive: Archive,
    documents: Callable[[bytes], Iterable[tuple[str, str]]],
    prose: Callable[[str], Iterable[tuple[int, str]]],
) -> dict[str, list[str]]:
    """The paragraphs of all sections ("Albedo 2"), kept as they were cleaned when the archive was fetched."""
    name = f"sections-{CLEANING}.json"

    def cleaned(path: Path) -> dict[str, bytes]:
        found: dict[str, list[str]] = {}
        for title, text in documents(path.read_bytes()):
            for section, paragraph in prose(text):
                found.setdefault(f"{title} {section}", []).append(paragraph)
        origin = {"package": archive.package, "version": archive.version, "licence": archive.licence}
        return {name: json.dumps(origin | {"sections": found}, ensure_ascii=False).encode()}

    return cast(dict[str, list[str]], json.loads(_kept(archive, name, cleaned))["sections"])


def _kept(archive: Archive, name: str, contents: Callable[[Path], Mapping[str, bytes]] | None = None) -> str:
    """One of the files that are kept of an archive; all are made anew where it is missing (older versions kept others)
    or damaged.

    Args:
        contents: makes of the fetched archive what is kept, by name; None takes its ``files`` as they are.
    """
    folder = cache_folder() / "prose" / archive.sha256[:12]
    if not (folder / name).is_file() or is_damaged(folder, [name]):
        with fetched(archive, DataError) as path:
            made = _files(path.read_bytes(), archive) if contents is None else contents(path)
        with unkept(f"Texts of {archive.package} are"), kept_in_cache(folder) as unfinished:
            for kept, content in made.items():
                (unfinished / kept).write_bytes(content)
        return made[name].decode()
    return (folder / name).read_text(encoding="utf-8")


def _files(packed: bytes, archive: Archive) -> dict[str, bytes]:
    packed = _member(packed, archive.inner, archive) if archive.inner else packed
    return {kept: _member(packed, archive.member + kept, archive) for kept in archive.files}


def _member(packed: bytes, name: str, archive: Archive) -> bytes:
    found = _members(packed, name.__eq__)
    if name not in found:
        raise DataError(f"{archive.package} {archive.version} holds no {name}.", "Report this as a defect.")
    return found[name]


def _members(packed: bytes, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files in a tar or a zip whose paths are wanted."""
    if packed.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(packed)) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if wanted(name)}
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        files = ((entry.name, opened.extractfile(entry)) for entry in opened if wanted(entry.name))
        return {name: file.read() for name, file in files if file is not None}
