"""Ordinary text, over which editors take the covariances of keys."""

from __future__ import annotations

from pathlib import Path

from indelible.errors import DataError
from indelible.files import read_text
from indelible.models.bundled.texts import encyclopedia_text

ENCYCLOPEDIA = "encyclopedia"


def corpus_texts(source: str) -> list[str]:
    """The bundled encyclopedia's passages, or the lines of a text file.

    Raises:
        DataError: if the file is missing, holds no text, or is not UTF-8.
    """
    if source == ENCYCLOPEDIA:
        return encyclopedia_text()
    lines = read_text(Path(source), "corpus", DataError).splitlines()
    texts = [text for line in lines if (text := line.strip())]
    if not texts:
        raise DataError(f"The corpus {source} holds no text.", "Give a file with one text per line.")
    return texts
