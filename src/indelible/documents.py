"""Texts in YAML and JSON as plain values: mappings with texts for keys, lists, texts, numbers, true, false and null.

Whatever stands in a text, its reader gets such values, or one error in words. What a parser would let through and
something later would stumble over is refused here: a value that holds itself, lists without end inside each other,
halves of characters, NUL; and in YAML, which is settings, aliases that multiply and numbers that are not finite or have
more than 64 bits.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from indelible.errors import IndelibleError
from indelible.files import read_text

DEEPEST = 60
"""Mappings and lists inside each other. Nobody writes so many by hand, and libraries go through more by recursion."""
MOST_VALUES = 500_000
"""Of a YAML text, where a few aliases can stand for billions; ten thousand arms written out are far fewer."""
LARGEST = 2**63 - 1
"""What a table's column of whole numbers holds, and what seeds torch and numpy take."""


class _Loader(yaml.SafeLoader):
    """YAML's own safe loader, but keys are the texts that are written, each once, and dates are texts as well."""

    yaml_implicit_resolvers = {  # noqa: RUF012 -- the class of yaml has it so
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.composer.ComposerError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        node.value = list({key.value: (key, value) for key, value in node.value}.values())

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def from_yaml(text: str, where: str, error: type[IndelibleError]) -> Any:
    """The value of a YAML text, which is called ``where`` ("my.yaml") in messages.

    Raises:
        error: if it is no YAML, with the line; or holds what no setting can be, with the keys that lead there.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as bad:
        mark = getattr(bad, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        said = getattr(bad, "problem", None) or " ".join(str(bad).split())
        raise error(f"{where}{line}: not valid YAML ({said}).", "Mend it, or quote what is meant as text.") from None
    except (ValueError, RecursionError) as bad:  # of whole numbers alone, and of thousands of brackets
        raise error(f"{where}: not YAML that can be read ({bad}).", "Write it shorter.") from None
    if wrong := _not_plain(value, most=MOST_VALUES):
        raise error(f"{where}: {wrong}.", "Change that value.")
    return value


def read_yaml(path: Path, what: str, error: type[IndelibleError]) -> Any:
    """The value of a YAML file; arguments and errors as of ``files.read_text`` and ``from_yaml``."""
    return from_yaml(read_text(path, what, error), str(path), error)


def from_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: in words, if it is none, has numbers too long or lists too deep to be taken, half a character or
            NUL.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON that can be read ({error})") from None
    # what an escape can write, and no tokenizer takes or no file holds
    doubtful = "\\ud" in text.lower() or "\\u0000" in text or text.count("[") + text.count("{") > DEEPEST
    if doubtful and (wrong := _not_plain(value)):
        raise ValueError(wrong)
    return value


def read_json(path: Path, what: str, error: type[IndelibleError]) -> Any:
    """The value of a JSON file; arguments and errors as of ``files.read_text``.

    Raises:
        error: also if it is no JSON, or as of ``from_json``.
    """
    text = read_text(path, what, error)
    try:
        return from_json(text)
    except ValueError as bad:
        raise error(f"{path}: {bad}.", "Mend it, or get a whole copy of it.") from None


def _not_plain(value: Any, *, most: int | None = None) -> str | None:
    """In words, which value of a document is none that may stand there, by the keys that lead to it.

    ``most``: how many values there may be of settings, whose numbers have bounds; None for records of any length, whose
    numbers may be what they are.
    """
    seen = itertools.count(1)
    of = " of the list" if isinstance(value, list) else ""

    def wrong(value: Any, keys: tuple[str, ...]) -> str | None:
        if most is not None and next(seen) > most:
            return f"it holds more than {most:,} values, aliases written out"
        if isinstance(value, dict | list):
            if len(keys) > DEEPEST:
                return f"{'.'.join(keys[:3])!r} and so on is more than {DEEPEST} lists and mappings deep"
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            # keys are texts, which can hold what texts can
            found = (wrong(one, (*keys, str(key))) or _of_text(str(key), "a key", repr(key)) for key, one in inside)
            return next(filter(None, found), None)
        where = (repr(".".join(keys)) + of) if keys else "the value"
        if isinstance(value, str):
            return _of_text(value, where, f"{value!r:.60}")
        if most is not None and isinstance(value, int) and abs(value) > LARGEST:
            return f"{where} is a whole number of more than 64 bits"
        if most is not None and isinstance(value, float) and not math.isfinite(value):
            return f"{where} is {value}, which is not finite"
        return None if value is None or isinstance(value, int | float) else f"{where} is a {type(value).__name__}"

    return wrong(value, ())


def _of_text(text: str, where: str, shown: str) -> str | None:
    if "\0" in text:
        return f"{where} has a NUL character in it ({shown})"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return f"{where} has half of a surrogate pair in it, which is no character ({shown})"
    return None
