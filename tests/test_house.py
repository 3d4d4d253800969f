"""The house: no room is overfull, no file is long, and what is imported late saves something."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import indelible

ROOT = Path(indelible.__file__).parent
MOST_MODULES = 12
MOST_LINES = 349


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    parts = {path: path.relative_to(ROOT.parent).with_suffix("").parts for path in sorted(ROOT.rglob("*.py"))}
    return {".".join(name[:-1] if name[-1] == "__init__" else name): path for path, name in parts.items()}


MODULES = modules()


def imports(node: ast.AST, *, late: bool, inside: bool = False) -> Iterator[str]:
    """Dotted names that a module imports when it is loaded, or those inside its functions; none for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import) and inside == late:
            yield from (name.name for name in child.names)
        if isinstance(child, ast.ImportFrom) and inside == late:
            yield from (f"{child.module}.{name.name}" for name in child.names)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(child, late=late, inside=inside or function)


@cache
def imported_by(name: str, *, late: bool) -> tuple[str, ...]:
    return tuple(imports(ast.parse(MODULES[name].read_text(encoding="utf-8")), late=late))


def packages(*names: str) -> set[str]:
    """Foreign packages that are loaded with what the dotted names lead to, Python's own left out."""
    found: set[str] = set()
    seen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name.split(".")[0] != "indelible":
            found.add(name.split(".")[0])
            continue
        module = name if name in MODULES else name.rpartition(".")[0]
        if module not in seen:
            seen.add(module)
            todo += imported_by(module, late=False)
    return found - sys.stdlib_module_names


def test_no_folder_is_overfull() -> None:
    """A thing is one file in a folder that holds nothing else; past a dozen, a folder answers two questions."""
    folders = {path.parent for path in MODULES.values()}
    sizes = {str(folder): sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    assert {folder: size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_no_file_is_long() -> None:
    sizes = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_late_imports_save_something() -> None:
    """An import inside a function keeps a foreign package from being loaded with the module, else it stands at the top.

    Commands may import late whatever they like: all of them are loaded whenever one is typed.
    """
    idle = [
        f"{name} imports {imported}"
        for name in MODULES
        if not name.startswith("indelible.cli.")
        for imported in imported_by(name, late=True)
        if not packages(imported) - packages(name)
    ]
    assert idle == []
