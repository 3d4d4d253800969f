"""What went wrong and what to do about it.

Every mistake that a user can make ends in one of these. The command line prints them and leaves with exit code 2; in
Python they also subclass the builtin that a caller would expect to catch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from indelible.showing import cut, listing


class IndelibleError(Exception):
    """Base of all errors that a user can cause and mend: what happened, with the value at fault; and what to do now."""

    def __init__(self, what: str, fix: str = "") -> None:
        self.what = cut(what)
        self.fix = cut(fix)
        super().__init__(f"{self.what} {self.fix}".strip())

    def __reduce__(self) -> tuple[Any, ...]:
        """An error comes back from another process as it was, whatever its own ``__init__`` takes."""
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[IndelibleError], arguments: tuple[Any, ...], state: dict[str, Any]) -> IndelibleError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    return error


class UnknownNameError(IndelibleError, LookupError):
    """A name that is not registered; carries the nearest known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        super().__init__(f"Unknown {kind} {name!r}.", suggest(name, self.known))


class PluginError(IndelibleError, ImportError):
    """What another distribution adds through an entry point cannot be loaded."""


class IndelibleWarning(UserWarning):
    """What a user can mend and work goes on without; the command line says it in one line."""


class PluginWarning(IndelibleWarning):
    """What another distribution adds cannot be loaded, and is passed over."""


class ConfigError(IndelibleError, ValueError):
    """A setting that cannot be used, in a study file or on the command line."""


class FactsError(IndelibleError, ValueError):
    """Facts that cannot be read or used: missing file, bad row, prompt without its subject."""


class SpellingError(FactsError):
    """A name that a tokenizer cannot spell: some of its tokens stand for whatever is not in the vocabulary."""


class ModelError(IndelibleError, ValueError):
    """A model that cannot be found, fetched or loaded."""


class LayoutError(IndelibleError, ValueError):
    """A module tree in which the parts that editing needs could not be found."""


class FingerprintError(IndelibleError, ValueError):
    """A weight update that belongs to another model than the one it is applied to."""


class EditError(IndelibleError, ValueError):
    """An edit that cannot be made with these facts or options."""


class DataError(IndelibleError, ValueError):
    """Training data that is missing, empty, or lacks a column."""


class TrainingDivergedError(IndelibleError, ArithmeticError):
    """A loss that became NaN or infinite."""


class StoreError(IndelibleError, OSError):
    """A run folder that cannot be written, is full, or belongs to another study."""


class Stopped(BaseException):
    """Work that Ctrl-C or SIGTERM ended; says what is kept of it."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Known names that ``name`` may be a slip for, the nearest first."""
    lowered = {candidate.lower(): candidate for candidate in known}
    return [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which known names are near ``name``, or list them (many in part) when none is."""
    known = sorted(known)
    if found := near_names(name, known):
        return f"Did you mean {' or '.join(repr(match) for match in found)}?"
    return f"Known: {listing(known)}." if known else "None are known."
