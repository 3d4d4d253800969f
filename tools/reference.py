"""The site's reference: every key of a study, every option and every command, made from the types that check them.

Nothing here is written by hand: a key's form and default come from pydantic's JSON schema, what it means from the
field's description or from its class's docstring, and commands from typer's own generator of pages.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

import typer
from pydantic import BaseModel
from typer.cli import get_docs_for_click

from indelible.cli.program import app
from indelible.edits.editor import EDITORS, Editor
from indelible.study.design.settings import StudyConfig
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.protection import PROTECTIONS
from indelible.tuning.settings import TuningSettings

Schema = Mapping[str, Any]
NULL = "`null` is the same as leaving the key out."
_WORDS = {"None": None, "True": True, "False": False}
_MANY = re.compile(r"\b(text|number|mapping)\b")
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def commands() -> str:
    """All commands, each with its examples."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="indelible")
    pieces = ["# Commands\n\nWhat `indelible COMMAND --help` says, on one page."]
    for name in group.list_commands(context):  # type: ignore[attr-defined]
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        command.epilog = _epilog(sys.modules[command.callback.__module__])
        below = typer.Context(command, info_name=name, parent=context)
        text = get_docs_for_click(obj=command, ctx=below, indent=1, call_prefix="indelible", title=name)
        pieces.append("\n".join(line for line in text.splitlines() if "`--help`" not in line))
    return "\n\n".join(pieces) + "\n"


def _epilog(module: Any) -> str:
    """A command's examples as a block, and whatever else its help ends with."""
    *lines, names = *module.EXAMPLES, [*getattr(module, "names", tuple)()]
    shown = [(line, re.fullmatch(r"(?:Example: )?`(indelible .*)`(?: (#.*))?", line)) for line in lines]
    block = [f"{found[1]}{f'  {found[2]}' if found[2] else ''}" for _, found in shown if found]
    rest = [line for line, found in shown if not found and line != "Examples:"]
    return "\n\n".join(["**Examples**:", "```bash\n" + "\n".join(block) + "\n```", *rest, *map(_plain, names)])


def study_keys() -> str:
    """Every key of a study file."""
    pieces = [
        "# Keys of a study file",
        "Every key that a study's YAML can have, its form, its default and its meaning. [Study](../study.md) shows"
        " how they are used. " + NULL,
        "## The study",
        keys(StudyConfig),
        *_sections(StudyConfig),
        *_section("tuning", TuningSettings, "Of the study, or of an arm. The objective's own keys stand beside them."),
    ]
    for objective in map(OBJECTIVES.get, OBJECTIVES):
        figures = ", ".join(f"`{figure.name}`" for figure in objective.figures)
        pieces += [
            f"### Objective `{objective.name}`",
            f"{_plain(inspect.getdoc(objective) or '')}\n\nTask: `{objective.default_task}`; trainer:"
            f" `{objective.trainer_name}`; held-out figures: {figures}.",
            keys(objective.settings, without=TuningSettings.model_fields),
        ]
    pieces += ["## protect", "Of an arm: names joined with `+`, or names with their options."]
    for protection in map(PROTECTIONS.get, PROTECTIONS):
        module = inspect.getdoc(sys.modules[protection.__module__]) or ""
        pieces += [f"### Protection `{protection.name}`", _plain(module), keys(protection)]
    return "\n\n".join(piece for piece in pieces if piece) + "\n"


def editor_options() -> str:
    """Every option of every editor; what several share once."""
    pieces = [
        "# Options of editors",
        "For `options:` of an arm, `editors:` of a study, `indelible edit --set KEY=VALUE`, and as arguments in Python."
        " [Editors, measured](../editors.md) compares the editors, and says why defaults differ from published"
        " settings. " + NULL,
    ]
    shared: dict[type[BaseModel], str] = {}
    own = []
    for editor in map(EDITORS.get, EDITORS):
        base = _shared_base(editor)
        if base.model_fields:
            link = shared.setdefault(base, _titled(base))
            more = f"\n\nIt has the options of [{link.lower()}](#{_slug(link)}), too, with these of its own:"
        else:
            more = ""
        own += [
            f"## {editor.name}",
            _plain(_first(inspect.getdoc(sys.modules[editor.__module__]) or "")) + more,
            keys(editor, without=_same(editor, base), published=getattr(editor, "as_published", {})),
        ]
    for base, title in shared.items():
        pieces += [f"## {title}", keys(base, published=getattr(base, "as_published", {}))]
    return "\n\n".join([*pieces, *own]) + "\n"


def _shared_base(editor: type[Editor]) -> type[BaseModel]:
    """The class with the most options that an editor has from one that is no editor by itself."""
    known = EDITORS.values()
    bases = [one for one in editor.__mro__ if issubclass(one, Editor) and one not in known]
    return max(bases, key=lambda one: len(one.model_fields))


def _same(editor: type[BaseModel], base: type[BaseModel]) -> set[str]:
    """Options that an editor has exactly as its base has them, published values included."""
    mine, its = (
        {
            name: (schema, getattr(one, "as_published", {}).get(name))
            for name, schema in one.model_json_schema()["properties"].items()
        }
        for one in (editor, base)
    )
    return {name for name, option in its.items() if mine[name] == option}


def _titled(base: type[BaseModel]) -> str:
    """What editors with that base are called: its name's words, in the plural."""
    return " ".join(re.findall(r"[A-Z][a-z]+", base.__name__)).capitalize() + "s"


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def keys(model: type[BaseModel], *, without: Iterable[str] = (), published: Mapping[str, Any] | None = None) -> str:
    """A definition list of a model's keys: each with its form, its default, and what it means.

    Raises:
        LookupError: for a key that nothing is said of.
    """
    schema = model.model_json_schema()
    told = dict(_attributes(model))
    lines = []
    for name, key in schema["properties"].items():
        if name in without:
            continue
        field = next((one for one, found in model.model_fields.items() if (found.alias or one) == name), name)
        said = model.model_fields[field].description or told.get(field)
        if not said:
            raise LookupError(f"{model.__name__}.{name} has neither a description nor a line in a docstring")
        parts = [f"`{name}`", _form(key, schema.get("$defs", {}))]
        if name in schema.get("required", ()):
            parts.append("**required**")
        elif "$ref" not in key:
            parts.append(f"default `{_value(key.get('default'))}`")
        if published and name in published:
            parts.append(f"published `{_value(published[name])}`")
        lines.append(f"{' · '.join(parts)}\n:   {_plain(said)}")
    return "\n\n".join(lines)


def _section(path: str, model: type[BaseModel], said: str = "") -> Iterator[str]:
    """The keys of a mapping, and below them those of each mapping in it."""
    yield f"{'###' if '.' in path else '##'} {path}"
    yield said
    yield keys(model)
    yield from _sections(model, f"{path}.")


def _sections(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """A section for each key that holds a mapping with keys of its own, or a list of such."""
    for name, field in model.model_fields.items():
        for one in get_args(field.annotation) or (field.annotation,):
            if isinstance(one, type) and issubclass(one, BaseModel):
                listed = get_origin(field.annotation) is tuple
                yield from _section(path + name, one, "A list; each of its entries has these keys." if listed else "")


def _form(schema: Schema, defs: Mapping[str, Schema]) -> str:
    """What a value has to look like, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "mapping, see below" if "properties" in defs[name] else _form(defs[name], defs)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_form(one, defs) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{_value(one)}`" for one in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any value")
    if kind == "array":
        items = schema.get("items", {})
        return "list of " + _MANY.sub(r"\1s", _form(items, defs)) if items else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        plain = isinstance(values, dict) and values.get("type") != "object" and "anyOf" not in values
        return f"mapping to {_form(values, defs)}" if plain else "mapping"
    words = {"integer": "whole number", "null": "`null`", "string": "text", "boolean": "`true` or `false`"}
    # The largest float32 is a bound that nobody has to read.
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema and schema[key] < 1e30]
    return " ".join([words.get(kind, kind), *bounds])


def _value(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _attributes(model: type) -> Iterator[tuple[str, str]]:
    """What the docstrings of a class and of those above it say of its attributes, the class's own last."""
    for one in reversed(model.__mro__):
        text = inspect.cleandoc(one.__dict__.get("__doc__") or "")
        _, _, section = text.partition("Attributes:\n")
        for entry in re.split(r"\n(?=    \w)", "\n" + section):
            names, colon, said = entry.strip().partition(": ")
            if colon:
                yield from ((name.strip(), " ".join(said.split())) for name in names.split(","))


def _first(text: str) -> str:
    """The first paragraph."""
    return text.partition("\n\n")[0]


def _plain(text: str) -> str:
    """Text of a docstring as Markdown: ``code`` with one tick, values as YAML has them, no references to modules."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    text = "\n\n".join(paragraphs).replace("``", "`")
    pieces = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(pieces), 2):
        piece = re.sub(r" \(see [a-z_]+\.[\w.]+\)", "", pieces[at])
        piece = re.sub(r"\bsee [A-Z][a-z]+Settings\b", "see below", piece)
        piece = re.sub(r"\b(None|True|False)\b", lambda found: f"`{_value(_WORDS[found[0]])}`", piece)
        pieces[at] = piece.replace("<", "&lt;").replace("*", r"\*").replace("[", r"\[")
    return "".join(pieces)


PAGES = {
    "reference/commands.md": commands,
    "reference/study-keys.md": study_keys,
    "reference/editor-options.md": editor_options,
}
"""What makes each page, by its file."""
