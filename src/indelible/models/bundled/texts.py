"""Real texts for training, rewards and covariances, out of pinned archives of the package index (see fetch.py).

Every reader fetches its archive when it is first asked for: DataError where the index does not answer, StoreError where
the cache cannot be written.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from typing import Any, cast

from indelible.errors import DataError
from indelible.models.bundled.fetch import Archive, cache_folder, fetched, kept_in_cache

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


def web_text() -> list[str]:
    """300 web documents (a sample of C4), for training and perplexity."""
    lines = _kept(PROSE, "c4_demo.jsonl").splitlines()
    return [json.loads(line)["text"] for line in lines if line.strip()]


def encyclopedia_articles(passage_words: int = 100) -> list[list[str]]:
    """Thirty Wikipedia articles in passages of so many words, some 130 tokens, white space made single."""
    articles = [article.split() for article in _kept(PROSE, "wiki_demo.txt").splitlines()]
    cuts = range(0, max(map(len, articles), default=0), passage_words)
    return [[" ".join(words[at : at + passage_words]) for at in cuts if at < len(words)] for words in articles]


def encyclopedia_text(passage_words: int = 100) -> list[str]:
    """The articles' passages, for covariances. Articles take turns (first passages first), so that a reader who stops
    early has seen all of them."""
    turns = itertools.zip_longest(*encyclopedia_articles(passage_words))
    return [passage for turn in turns for passage in turn if passage]


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


def _kept(archive: Archive, name: str) -> str:
    """One of the files that are kept of an archive; all are fetched where it is missing (older versions kept fewer)."""
    folder = cache_folder() / "prose" / archive.sha256[:12]
    if not (folder / name).is_file():
        with fetched(archive, DataError) as path, kept_in_cache(folder) as unfinished:
            whole = path.read_bytes()
            packed = _member(whole, archive.inner, archive) if archive.inner else whole
            for kept in archive.files:
                (unfinished / kept).write_bytes(_member(packed, archive.member + kept, archive))
    return (folder / name).read_text(encoding="utf-8")


def _member(packed: bytes, name: str, archive: Archive) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        member = opened.extractfile(name) if name in opened.getnames() else None
        if member is None:
            raise DataError(f"{archive.package} {archive.version} holds no {name}.", "Report this as a defect.")
        return member.read()
