"""Name -> thing, for everything that a study or a report picks by name (editors, objectives, masks, exhibits, ...).

Adding a built-in means adding one file to its package. Another distribution adds an entry point, named like the thing,
that leads to the module in which it registers itself. Nothing is imported before the first look-up. What cannot be
loaded is passed over with a warning, and is an error for those alone who ask for it by its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import warnings
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from indelible.errors import PluginError, PluginWarning, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of named things, filled by decorators when their modules are imported.

    Args:
        kind: what the entries are, in the singular, for messages ("editor").
        packages: dotted names of the packages whose modules register the built-in entries.
        group: entry-point group of plug-ins.
        taken: names that mean something else, which no entry can have.
    """

    def __init__(self, kind: str, *packages: str, group: str, taken: Collection[str] = ()) -> None:
        self.kind = kind
        self.packages = packages
        self.group = group
        self.taken = taken
        self._entries: dict[str, T] = {}
        self._broken: dict[str, PluginError] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files the decorated object under ``name``.

        Raises:
            ValueError: if another object already has that name, or it is taken.
        """

        def file(entry: T) -> T:
            if name in self.taken or self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"two {self.kind}s are named {name!r}")
            return entry

        return file

    def get(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UnknownNameError: if there is none.
            PluginError: if it is a plug-in that cannot be loaded.
        """
        if name not in self._entries:
            self._import_all()
        if name in self._broken and name not in self._entries:
            raise self._broken[name]
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def names(self) -> list[str]:
        """All names, sorted."""
        self._import_all()
        return sorted(self._entries)

    def values(self) -> list[T]:
        """All entries, in the order in which they were registered."""
        self._import_all()
        return list(self._entries.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _import_all(self) -> None:
        if self._complete:
            return
        for name in self.packages:
            for module in pkgutil.iter_modules(importlib.import_module(name).__path__):
                importlib.import_module(f"{name}.{module.name}")
        for plugin in entry_points(group=self.group):
            try:
                plugin.load()
                if plugin.name not in self._entries:
                    raise LookupError(f"{plugin.value} registers no {self.kind} of that name")
            except Exception as error:  # whatever anyone's module raises
                owner = f"the distribution {plugin.dist.name!r}" if plugin.dist else "an unnamed distribution"
                broken = PluginError(
                    f"The {self.kind} {plugin.name!r} of {owner} cannot be loaded: {type(error).__name__}: {error}.",
                    "Mend or uninstall that distribution.",
                )
                self._broken[plugin.name] = broken
                warnings.warn(f"{broken.what} It is left out. {broken.fix}", PluginWarning, stacklevel=3)
        self._complete = True


def listed(package: str, group: str) -> list[str]:
    """Sorted names of a package's and an entry-point group's things, told without importing any.

    A module bears its thing's name, with an underscore for a hyphen; packages above it are imported.
    """
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    built_in = {module.name.replace("_", "-") for module in pkgutil.iter_modules(places or [])}
    return sorted(built_in | {plugin.name for plugin in entry_points(group=group)})
