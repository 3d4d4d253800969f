"""Name -> factory, for everything that a study picks by name (editors, objectives, masks, ...).

A registry is told the packages in which its built-in entries live and the entry-point group through which other
distributions add theirs. Neither is imported before the first look-up, so that listing commands stay quick. Adding a
built-in means adding one file to that package; nothing else is touched.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from indelible.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of named things, filled by decorators when their modules are imported.

    Args:
        kind: what the entries are, in the singular, for messages ("editor").
        packages: dotted names of the packages whose modules register the built-in entries.
        group: entry-point group of plug-ins; each entry point loads a module or object that registers itself.
    """

    def __init__(self, kind: str, *packages: str, group: str) -> None:
        self.kind = kind
        self.packages = packages
        self.group = group
        self._entries: dict[str, T] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files the decorated object under ``name``.

        Raises:
            ValueError: if another object already has that name.
        """

        def file(entry: T) -> T:
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"two {self.kind}s are named {name!r}")
            return entry

        return file

    def get(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UnknownNameError: with the nearest names, if there is none.
        """
        if name not in self._entries:
            self._import_all()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def names(self) -> list[str]:
        """All names, sorted."""
        self._import_all()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _import_all(self) -> None:
        if self._complete:
            return
        for name in self.packages:
            for module in pkgutil.iter_modules(importlib.import_module(name).__path__):
                importlib.import_module(f"{name}.{module.name}")
        for plugin in entry_points(group=self.group):
            plugin.load()
        self._complete = True
