"""What is done to good input: values in its structure replaced, moved and doubled, its text and bytes damaged."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import yaml

NAMES = (
    *("none", "auto", "known", "any", "world", "encyclopedia", "rome", "memit", "grace", "ike", "lora", "full", "text"),
    *("reason", "reward", "edited-layers", "layers:0-99999999999", "edited-layers:99999999", "like:*", "near+replay"),
    *("isolated", "task-vector", "loss", "-5%", "smollm2-135m", "model", "facts.jsonl", "a.safetensors", "{}", "%s"),
)
PATHS = (
    *("../outside/x", "/", "..", ".", "~", "~/x", "~nobody-of-that-name/x", "/dev/null", "/dev/full", "/proc/self/mem"),
    *("/proc/self/environ", "loop", "x" * 300, "x/" * 3000, "con", "a\nb", "a\tb", " ", "-", "--out", "$HOME"),
    *("/dev/zero", "../kept/facts.jsonl", "facts.jsonl/x"),
)
TEXTS = (
    *("", " ", "\0", "a\0b", "\ud800", "a\udc80", "\u2028", "\x1b[31m", "\u202e", "e" + "\u0301" * 2000, "\U0001f600"),
    *("x" * 5000, "<b onload=alert(1)>", "=1+1", "{0.__class__}", "${HOME}", "`id`", "'", '"', "\\", "1e-4", "NaN"),
    *("null", "2024-02-30", "0x10", "1:30", "²", "٣", "１", "-0", "+5%", "1e400", "True"),
)
NUMBERS = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 63, 1000, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, -1.5, 1e-300, 5e-324, 1e38, 1e308, float("nan"), float("inf"), float("-inf")),
)
NESTS: tuple[Callable[[], Any], ...] = (
    *(list, dict, lambda: [None], lambda: [[]], lambda: {"a": {}}, lambda: {"": 1}, lambda: {"name": "x"}),
    *(lambda: list(range(2000)), lambda: nested(50), lambda: nested(300), lambda: ["x"] * 3, lambda: {"x" * 300: 1}),
)
YAML_ONLY = (
    *(f"0x{'f' * 5000}", "9" * 5000, "&a [*a]", "&a {b: *a}", "*a", "!!set {a}", "!!binary aGk=", "!!omap [a: 1]"),
    *("2024-02-30", "2024-01-31", "!!python/object/apply:os.system ['true']", "!x 1", "[" * 2000, "{" * 50, "? [a]"),
    *("1e400", ".nan", "12:30:45", "{<<: [*a]}", "&a {<<: *a}", "|\n  x", "'", '"\\ud800"', '"\\0"', "@", "`", "%"),
)
JSON_ONLY = ("NaN", "-Infinity", "1e999", "9" * 5000, "[" * 3000, '"\\ud800"', '"\\u0000"', "{", "tru", "")
_TOKEN = "RAWVALUE"


def nested(depth: int) -> list[Any]:
    """Lists inside each other."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


class Mutator:
    """Draws by one generator: the same generator gives the same input."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._raw: dict[str, tuple[str, str]] = {}

    def text(self) -> str:
        """Some text that something may stumble over."""
        return self.random.choice(self.random.choice((NAMES, PATHS, TEXTS)))

    def value(self) -> Any:
        """Some value of any type; one in eight is written as only YAML or JSON can."""
        kind = self.random.randrange(8)
        if kind == 0:
            token = f"{_TOKEN}{len(self._raw)}Z"
            self._raw[token] = (self.random.choice(YAML_ONLY), self.random.choice(JSON_ONLY))
            return token
        if kind == 1:
            return self.random.choice(NESTS)()
        return self.random.choice(NUMBERS) if kind < 5 else self.text()

    def changed(self, document: Any, most: int = 3) -> Any:
        """A copy of a structure after up to so many changes of what it holds."""
        document = copy.deepcopy(document)
        for _ in range(self.random.randint(1, most)):
            places = list(_places(document))
            if not places:
                return self.value()
            self._change(*self.random.choice(places))
        return document

    def _change(self, inside: Any, key: Any) -> None:
        what = self.random.randrange(8)
        if what == 0:
            del inside[key]
        elif what == 1 and isinstance(inside, dict):
            inside[self.text()] = inside.pop(key)
        elif what == 1:
            inside.append(copy.deepcopy(inside[key]))
        elif what == 2:
            inside[key] = [inside[key]]
        elif what == 3:
            inside[key] = {self.text(): inside[key]}
        elif what == 4 and isinstance(inside[key], str):
            inside[key] = self.damaged(inside[key])
        elif what == 5 and isinstance(inside, dict):
            inside[self.text()] = self.value()
        else:
            inside[key] = self.value()

    def damaged(self, text: str) -> str:
        """A text with a part of it gone, doubled or replaced."""
        first, last = sorted(self.random.randint(0, len(text)) for _ in range(2))
        last = min(last, first + 40)
        put = self.random.choice(("", text[first:last] * 2, self.text(), self.random.choice(YAML_ONLY)))
        return text[:first] + put + text[last:]

    def broken(self, raw: bytes) -> bytes:
        """Bytes of which some are flipped, gone, doubled or cut off."""
        if not raw:
            return bytes([self.random.randrange(256)])
        found = bytearray(raw)
        for _ in range(self.random.randint(1, 4)):
            place, what = self.random.randrange(len(found) or 1), self.random.randrange(5)
            if what == 0:
                del found[place:]
            elif what == 1:
                del found[place : place + self.random.randint(1, 20)]
            elif what == 2:
                found[place:place] = found[place : place + self.random.randint(1, 200)]
            elif what == 3:
                found[place:place] = bytes(self.random.randrange(256) for _ in range(self.random.randint(1, 8)))
            elif found:
                found[place] ^= 1 << self.random.randrange(8)
        return bytes(found)

    def as_yaml(self, document: Any) -> str:
        """The structure as YAML, with what only YAML can write; in one of four cases its text is damaged as well."""
        with _however_deep():
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=self.random.random() < 0.3)
        text = self._filled(text, 0)
        return self.damaged(text) if self.random.random() < 0.25 else text

    def as_json(self, document: Any) -> str:
        """The same as JSON."""
        with _however_deep():
            text = json.dumps(document, ensure_ascii=self.random.random() < 0.7)
        text = self._filled(text, 1)
        return self.damaged(text) if self.random.random() < 0.2 else text

    def _filled(self, text: str, place: int) -> str:
        for token, written in self._raw.items():
            text = text.replace(f'"{token}"' if place else token, written[place])
        return text


@contextmanager
def _however_deep() -> Iterator[None]:
    """Deep values inside deep ones are written, too; whether they are read is what is tried."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100 * before)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping or list inside a structure, with each of its keys or places."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def plausible(schema: Mapping[str, Any], random: Random, whole: Mapping[str, Any] | None = None) -> Any:
    """A value that a JSON schema may allow, often at its bounds: what is not refused at once, and so goes deeper."""
    whole = whole or schema
    if "$ref" in schema:
        return plausible(whole["$defs"][schema["$ref"].rpartition("/")[2]], random, whole)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return plausible(random.choice(choices), random, whole)
    if "const" in schema or "enum" in schema:
        return random.choice(schema.get("enum") or [schema["const"]])
    kind = schema.get("type")
    if kind == "null":
        return None
    if kind == "boolean":
        return random.random() < 0.5
    if kind in ("integer", "number"):
        step = 1 if kind == "integer" else 0.001
        least = schema.get("minimum", schema.get("exclusiveMinimum", -5) + step)
        most = schema.get("maximum", schema.get("exclusiveMaximum", random.choice((8, 200, 10**6, 2**62))) - step)
        drawn = random.choice((least, most, least + 1, random.uniform(least, max(least, most))))
        return int(drawn) if kind == "integer" else float(drawn)
    if kind == "string":
        return random.choice((*NAMES, *PATHS[:6], "a", "+1%"))
    if kind == "array":
        return [plausible(schema.get("items", {}), random, whole) for _ in range(random.randrange(4))]
    if kind == "object":
        return some_options(schema, random, whole)
    return random.choice((*NUMBERS[:8], "a"))


def some_options(schema: Mapping[str, Any], random: Random, whole: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A few of an object's properties, those that have to be there among them."""
    own: Mapping[str, Any] = schema.get("properties", {})
    names = {*schema.get("required", ()), *random.sample(sorted(own), min(len(own), random.randrange(5)))}
    found = {name: plausible(own[name], random, whole or schema) for name in sorted(names)}
    further = schema.get("additionalProperties")
    if isinstance(further, dict) and random.random() < 0.5:
        found[random.choice(NAMES)] = plausible(further, random, whole or schema)
    return found


def chosen(random: Random, among: Sequence[Any], most: int) -> list[Any]:
    """Up to so many of some things, at least one."""
    return [random.choice(among) for _ in range(random.randint(1, most))]
