"""YAML and JSON from outside give plain values or one error in words, whatever stands in them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from indelible.documents import DEEPEST, LARGEST, from_json, from_yaml, read_json, read_yaml
from indelible.errors import ConfigError

TENFOLD = [", ".join([f"*a{at}"] * 10) for at in range(11)]
ALIASES = "\n".join(["a0: &a0 [1, 2]", *(f"a{at}: &a{at} [{ten}]" for at, ten in enumerate(TENFOLD, 1))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{place}: &a{place} {{<<: [{ten}]}}" for place, ten in enumerate(TENFOLD, 1))]
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: [1, 2.5, yes, null, 'x']", {"a": [1, 2.5, True, None, "x"]}),
        ("2024-02-30", "2024-02-30"),
        ("day: 2024-01-31 10:00:00", {"day": "2024-01-31 10:00:00"}),
        ("{1: a, null: b, 2024-01-31: c, on: d}", {"1": "a", "null": "b", "2024-01-31": "c", "on": "d"}),
        (f"[{LARGEST}, {-LARGEST}]", [LARGEST, -LARGEST]),
        (
            "x: &x {a: 1}\ny: {<<: *x, b: 3}\nz: *x",
            {"x": {"a": 1}, "y": {"a": 1, "b": 3}, "z": {"a": 1}},
        ),
        ("&a {<<: *a, b: 1}", {"b": 1}),
        ("x: &x {b: 1}\ny: &y {<<: *x, b: 2}\nz: {<<: *y, b: 3}", {"x": {"b": 1}, "y": {"b": 2}, "z": {"b": 3}}),
    ],
)
def test_yaml_gives_plain_values(text: str, value: Any) -> None:
    assert from_yaml(text, "my.yaml", ConfigError) == value
    assert from_yaml(yaml.safe_dump(value), "my.yaml", ConfigError) == value


def test_merges_do_not_multiply() -> None:
    assert from_yaml(MERGES, "my.yaml", ConfigError)["a11"] == {"x": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [b\nc: d\n", "my.yaml, line 2: not valid YAML (expected ',' or ']'"),
        ("a: 1\nb: 2\na: 3\n", "my.yaml, line 3: not valid YAML (the key 'a' twice)"),
        ("? [a]\n: 1", "my.yaml, line 1: not valid YAML (a key that is no text)"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: !!int x", "not YAML that can be read (invalid literal"),
        ("a: *b", "found undefined alias 'b'"),
        ("a: {b: [&c [*c]]}", "'a.b.0' and so on is more than"),
        ("&a {b: *a}", "'b.b.b' and so on is more than"),
        ("[" * 2000, "not YAML that can be read (maximum recursion"),
        ("[" * 200 + "]" * 200, f"is more than {DEEPEST} lists and mappings deep"),
        (ALIASES, "it holds more than 500,000 values"),
        (f"a: {2**63}", "'a' is a whole number of more than 64 bits"),
        (f"a: 0x{'f' * 9999}", "'a' is a whole number of more than 64 bits"),
        ("9" * 9999, "not YAML that can be read (Exceeds the limit"),
        ("a: [1.5, -.inf]", "'a.1' is -inf, which is not finite"),
        ("a: {b: .nan}", "'a.b' is nan, which is not finite"),
        ("a: !!set {b}", "'a' is a set"),
        ("a: !!binary aGk=", "'a' is a bytes"),
        ('a: ["x\\0"]', "'a.0' has a NUL character in it ('x\\x00')"),
        ('"x\\0": 1', "a key has a NUL character in it"),
        ('"\\ud83d"', "the value has half of a surrogate pair in it, which is no character ('\\ud83d')"),
        ("a: \ud83d", "not valid YAML"),
    ],
)
def test_yaml_that_nothing_could_use_is_one_error(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        from_yaml(text, "my.yaml", ConfigError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1', "not JSON (Expecting ',' delimiter at column 8)"),
        ("[" * 99999, "not JSON that can be read (maximum recursion"),
        ("[" * 200 + "]" * 200, f"is more than {DEEPEST} lists and mappings deep"),
        ("9" * 9999, "not JSON that can be read (Exceeds the limit"),
        ('{"a": ["\\uD83D"]}', "'a.0' has half of a surrogate pair in it"),
        ('{"a\\u0000": 1}', "a key has a NUL character in it"),
    ],
)
def test_json_that_nothing_could_use_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        from_json(text)
    (tmp_path / "my.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"my\.json: .*{re.escape(said)}"):
        read_json(tmp_path / "my.json", "file", ConfigError)


def test_json_gives_plain_values(tmp_path: Path) -> None:
    # a delta of thousands of facts, and figures that did not stay finite, are read as they were written
    written = [{"facts": ["a"] * 100, "figure": math.inf}] * 6000
    assert from_json(json.dumps(written)) == written
    assert from_json('{"a": ["\\ud83d\\ude00", 1e3, null]}') == {"a": ["😀", 1000.0, None]}
    for read in (read_json, read_yaml):
        with pytest.raises(ConfigError, match="There is no file"):
            read(tmp_path / "gone", "file", ConfigError)
