"""Settings and provenance as lines that people can read and compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, text); lists of plain values on one line, lists of mappings numbered from 1."""
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            if any(isinstance(item, Mapping) for item in value):
                yield from flat({str(number): item for number, item in enumerate(value, 1)}, f"{name}.")
            else:
                yield name, ", ".join(map(str, value)) or "none"
        else:
            yield name, "none" if value is None or value == {} else str(value)
