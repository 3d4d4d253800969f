"""What a delta's file says of itself, and that it is whole: read without torch, for whoever needs no model.

A delta is one safetensors file. Its manifest stands as JSON in the file's own metadata, beside the SHA-256 of the file
(taken with zeros in its place), so that nothing in it can be damaged or changed unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from indelible.documents import from_json
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.files import read_bytes

SUFFIX = ".safetensors"
FORMAT: Literal[5] = 5
_MANIFEST, _HASH = "manifest", "sha256"
_BLANK = "0" * 64
_WRITTEN_BY_US = "Give a file written by `indelible edit`."


class _Said(BaseModel):
    """Types are exact, so that what is read again is what was written."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Origin(_Said):
    """A model in words that people know.

    Attributes:
        name: bundled, of the hub, or a folder's last component; empty if it has none.
        architecture: name of its class.
    """

    name: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.name or 'a model'} ({self.architecture})"


class Made(_Said):
    """What made one edit: the editor, its options and what it was given beside the facts."""

    editor: str
    options: dict[str, Any]
    paraphrases: int
    seed: int
    versions: dict[str, str]


class Seal(_Said):
    """What is said of the weights that an update belongs to; see seal.py.

    Attributes:
        result: fingerprint of the model that the update leaves.
        before: by parameter, SHA-256 of the weights that the update was made for.
        after: by parameter, SHA-256 of the weights that it leaves.
        products: by parameter, the sum over all entries of weight times difference, before the update.
    """

    result: str
    before: dict[str, str]
    after: dict[str, str]
    products: dict[str, float]

    def state(self, name: str, digest: str) -> str:
        """What a parameter with that SHA-256 is: "absent", "exact" or "changed" (see ``seal.Remains``)."""
        return {self.before[name]: "absent", self.after[name]: "exact"}.get(digest, "changed")


class Manifest(_Said):
    """What every edit says of itself. Kinds that say more derive from it.

    Attributes:
        format: of the file.
        kind: of the edit.
        fingerprint: of the model that it was made for.
        model: the same in words.
        made: what made it; several entries for a sum.
        parameters: that it changes or, where it changes none, acts beside.
        facts: that were edited, each with its new object.
        bystanders: ids of facts that were to be left alone.
        answered: by id, how a fact was answered right after the edit, where somebody asked.
        arrived: by id, how much of the change that the editor wanted of the value layer's output at the subject was
            there right after the edit, as a share; of editors that want none, nothing.
    """

    format: Literal[5] = FORMAT
    kind: str
    fingerprint: str
    model: Origin
    made: tuple[Made, ...]
    parameters: tuple[str, ...]
    facts: tuple[Fact, ...]
    bystanders: tuple[str, ...] = ()
    answered: dict[str, str] = {}
    arrived: dict[str, float] = {}

    @property
    def editor(self) -> str:
        """The editor's name, or those of a sum."""
        return " + ".join(dict.fromkeys(one.editor for one in self.made))

    def but(self, **changes: Any) -> Self:
        """The same with some entries changed."""
        return self.model_copy(update=changes)

    def continuing(self, earlier: Manifest) -> Self:
        """The same with the facts of an earlier edit before its own, but for those that are edited again."""
        again = {fact.id for fact in self.facts}
        return self.but(facts=(*(fact for fact in earlier.facts if fact.id not in again), *self.facts))


class WeightManifest(Manifest):
    """What an update of weights says of itself.

    Attributes:
        leaves: fingerprints of models that a sum without a seal may be said to leave.
        seal: of an update that can be reverted and found again.
    """

    kind: Literal["weights"] = "weights"
    leaves: tuple[str, ...] = ()
    seal: Seal | None = None


def packed(manifest: Manifest, save: Callable[[dict[str, str]], bytes]) -> bytes:
    """A delta's file, made by ``save`` with this manifest in its metadata; the same edit gives the same bytes."""
    metadata = {_MANIFEST: manifest.model_dump_json(), _HASH: _BLANK}
    raw = save(metadata)
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size]) | {"__metadata__": metadata}  # in no order of chance
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    raw = len(text).to_bytes(8, "little") + text + raw[8 + size :]
    place = raw.index(f'"{_HASH}":"{_BLANK}"'.encode()) + len(_HASH) + 4
    return raw[:place] + _digest(raw, place).encode() + raw[place + len(_BLANK) :]


def unpacked(path: Path) -> tuple[str, bytes]:
    """A delta's manifest, as JSON, and its whole file, given its path with or without the suffix.

    Raises:
        EditError: if there is none, or it is damaged, or of another format.
    """
    if not path.is_file() and (named := with_suffix(path)).is_file():
        path = named
    raw = read_bytes(path, "delta", EditError)
    try:
        metadata = from_json(raw[8 : 8 + int.from_bytes(raw[:8], "little")].decode())["__metadata__"]
        text, said = metadata[_MANIFEST], str(metadata[_HASH])
        found = from_json(text)["format"]
    except (ValueError, KeyError, TypeError):
        raise EditError(f"{path} is no delta, or is damaged.", _WRITTEN_BY_US) from None
    place = raw.find(f'"{_HASH}":"{said}"'.encode()) + len(_HASH) + 4
    if len(said) != len(_BLANK) or _digest(raw, place) != said:
        raise EditError(
            f"{path} is damaged, or was changed after it was written.",
            "Save the edit again, or get a whole copy of it.",
        )
    if found != FORMAT:
        raise EditError(f"{path} has format {found}, not {FORMAT}.", "Make the edit again with this version.")
    return text, raw


def with_suffix(path: Path) -> Path:
    """Where a delta is written that is to be called so: a suffix is kept, which the ".01" of "lr-0.01" is not."""
    named = path.suffix[1:2].isalpha() or path.name in ("", "..")
    return path if named else path.with_name(path.name + SUFFIX)


def _digest(raw: bytes, place: int) -> str:
    """SHA-256 of a file with zeros where its hash stands."""
    whole = hashlib.sha256(memoryview(raw)[:place])
    whole.update(_BLANK.encode())
    whole.update(memoryview(raw)[place + len(_BLANK) :])
    return whole.hexdigest()
