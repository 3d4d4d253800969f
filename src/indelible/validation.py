"""Settings checked once, where they enter, and mistakes told as a person would: which key, which value, what then.

pydantic finds the mistakes; this module says them in one line, with the keys that come nearest to an unknown one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from indelible.errors import ConfigError, UnknownNameError, suggest
from indelible.showing import cut

M = TypeVar("M", bound=BaseModel)


def _seen(name: str) -> str:
    if hidden := next((letter for letter in name if not letter.isprintable()), None):
        raise ValueError(f"a name is one line of what can be seen, without U+{ord(hidden):04X}")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_seen)]
"""What something is called in files, tables and on terminals: no line break of Unicode, no control character."""
_WANTED = "Input should be "


def validated(model: type[M], settings: Any, path: str) -> M:
    """What a user wrote as an instance of a pydantic class.

    ``path`` is where in the study file it stands, e.g. "tuning" or "arms.2.options"; "" for its top.

    Raises:
        ConfigError: names the key's path, the value, and what to write instead.
    """
    try:
        made = model.model_validate(settings)
    except UnknownNameError as error:
        raise ConfigError(f"{error.what.rstrip('.')} in {path or 'the study'!r}.", error.fix) from None
    except ValidationError as error:
        found = _of_one_value(error.errors())
    else:
        if mistaken := _truth_as_number(settings, made):
            where = ".".join(filter(None, (path, *mistaken)))
            raise ConfigError(f"{where!r} should be a number, not true or false.", "Change that value.")
        return made
    first, location = found[0], _location(found[0])
    where = ".".join(str(part) for part in ([path] if path else []) + location)
    if first["type"] == "extra_forbidden":
        raise ConfigError(f"Unknown key {where!r}.", suggest(str(location[-1]), _keys_at(model, location[:-1])))
    if first["type"] == "missing":
        known = ", ".join(_keys_at(model, location[:-1]))
        raise ConfigError(f"The key {where!r} is missing.", f"Add it (keys that may stand there: {known}).")
    message = first["msg"]
    if message.startswith(_WANTED):
        wanted = " or ".join(dict.fromkeys(map(_wanted, found)))
        raise ConfigError(f"{where!r} should be {wanted}, not {cut(repr(first['input']), 60)}.", "Change that value.")
    reason = (
        re.sub("^(Value error, |Assertion failed, |Input )", "", message).rstrip(".").replace(" after validation", "")
    )
    reason = re.sub("^(String|Tuple|List|Dictionary) should", "it should", reason)
    if isinstance(first["input"], Mapping | list | tuple):
        raise ConfigError(f"{where or 'study'}: {reason}.", "Change one of these settings.")
    raise ConfigError(f"{where!r} is {cut(repr(first['input']), 60)}: {reason}.", "Change that value.")


def _truth_as_number(given: Any, made: Any) -> tuple[str, ...] | None:
    """The keys that lead to a true or false that was taken for 1 or 0, as pydantic does; None if there is none."""
    if isinstance(given, bool):
        return () if type(made) in (int, float) else None
    pairs: Iterable[tuple[str, Any, Any]] = ()
    if isinstance(given, Mapping) and isinstance(made, BaseModel):
        names = {field.alias or name: name for name, field in type(made).model_fields.items()}
        pairs = ((key, value, getattr(made, str(names.get(key, key)), None)) for key, value in given.items())
    elif isinstance(given, Mapping) and isinstance(made, Mapping):
        pairs = ((str(key), value, made.get(key)) for key, value in given.items())
    elif isinstance(given, list | tuple) and isinstance(made, list | tuple):
        pairs = ((str(place), *both) for place, both in enumerate(zip(given, made, strict=False)))
    inside = ((key, _truth_as_number(*both)) for key, *both in pairs)
    return next(((key, *keys) for key, keys in inside if keys is not None), None)


def _of_one_value(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """What is to be said first, an unknown key or else what comes first; of a value that may be one of several types,
    what those types say that it came furthest in."""
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = _location(first)
    of_it = [one for one in errors if _location(one)[: len(place)] == place]
    deepest = max(len(_location(one)) for one in of_it)
    of_it = [one for one in of_it if len(_location(one)) == deepest]
    return [one for one in of_it if not one["msg"].startswith(_WANTED)] or of_it


def _location(error: ErrorDetails) -> list[int | str]:
    """The keys and places that lead to what is wrong; a key that nobody knows may look like anything."""
    loc = error["loc"]
    unknown = len(loc) - 1 if error["type"] == "extra_forbidden" else None
    return [part for place, part in enumerate(loc) if place == unknown or not _is_branch_label(part)]


def _wanted(error: ErrorDetails) -> str:
    """pydantic speaks of tuples and instances; whoever writes a study file knows lists and mappings."""
    wanted = error["msg"].removeprefix(_WANTED).partition(", unable to")[0]
    if wanted.startswith("a valid dictionary"):
        return "a mapping of keys to values"
    return re.sub(r"^a valid (tuple|list|set).*", "a list", wanted).replace("a valid string", "text")


def _is_branch_label(part: int | str) -> bool:
    """Whether a part of pydantic's location names a member of a union or a function instead of a key."""
    return isinstance(part, str) and ("[" in part or part in {"int", "float", "str", "bool", "none"})


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys that may stand at that place: walks from the class along field names and list positions."""
    here: Any = model
    for part in location:
        if isinstance(part, str):
            fields = _fields(_model_in(here))
            if part not in fields:
                return []
            here = fields[part].annotation
    return list(_fields(_model_in(here)))


def _fields(model: type[BaseModel] | None) -> dict[str, FieldInfo]:
    """Fields by the key that a user writes; those that never leave the class are none of a user's."""
    fields = {} if model is None else model.model_fields
    return {field.alias or name: field for name, field in fields.items() if not field.exclude}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic class inside an annotation such as ``tuple[ArmSettings, ...]`` or ``X | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple, list, dict):
        return next(filter(None, map(_model_in, get_args(annotation))), None)
    return None


def first_difference(left: Any, right: Any, path: str = "") -> str | None:
    """The path of the first key in which two nested settings, which stand at ``path``, differ; None if none does."""
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        left, right = dict(enumerate(left)), dict(enumerate(right))
    if not (isinstance(left, Mapping) and isinstance(right, Mapping)):
        return None if left == right else path
    for key in {**left, **right}:
        here = f"{path}.{key}" if path else str(key)
        found = first_difference(left[key], right[key], here) if key in left and key in right else here
        if found is not None:
            return found
    return None
