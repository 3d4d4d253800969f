"""What a study reads from outside its settings: candidate facts, texts for covariances, the model; and their versions.

The versions go into the keys of steps, so that a changed facts file or another model under the same name never passes
for the one that a result was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from indelible.errors import DataError, FactsError, suggest
from indelible.facts.fact import Fact
from indelible.models.bundled import fetch as bundled
from indelible.study.design.plan import digest
from indelible.study.design.settings import ENCYCLOPEDIA, WORLD, FactsSettings
from indelible.study.run.store import Store

# Weights, settings, and the files of all kinds of tokenizers.
_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "*.tiktoken")


@dataclass(frozen=True)
class ModelVersion:
    """What tells one model from another: the fingerprint of its weights, the digest of its tokenizer."""

    fingerprint: str
    tokenizer: str


def candidate_facts(settings: FactsSettings) -> list[Fact]:
    """All facts that a study may choose from.

    Raises:
        FactsError: the file cannot be read, a row of it cannot be used although ``strict`` asks for that, or a
            relation is not among the facts.
    """
    facts = _all_facts(settings)
    if settings.relations is None:
        return facts
    known = {fact.relation for fact in facts}
    for relation in settings.relations:
        if relation not in known:
            raise FactsError(f"No fact has the relation {relation!r} in 'facts.relations'.", suggest(relation, known))
    return [fact for fact in facts if fact.relation in settings.relations]


def _all_facts(settings: FactsSettings) -> list[Fact]:
    if settings.source == WORLD:
        from indelible.facts.world import world_facts

        return world_facts()
    from indelible.facts.read import read_facts

    source, columns, schema = settings.source, settings.columns, settings.schema_name
    return list(read_facts(source, columns=columns, schema=schema, strict=settings.strict).facts)


def facts_version(facts: Sequence[Fact]) -> str:
    """Digest of facts, in their order."""
    return digest([asdict(fact) for fact in facts])


def corpus_texts(source: str) -> list[str]:
    """Texts for key covariances: the bundled encyclopedia passages, or the lines of a file.

    Raises:
        DataError: the file is missing, empty or not UTF-8.
    """
    if source == ENCYCLOPEDIA:
        return bundled.encyclopedia_text()
    try:
        lines = [line.strip() for line in Path(source).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"The corpus {source} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"The corpus {source} cannot be read: {error.strerror}.", "Give a text file.") from None
    texts = [line for line in lines if line]
    if not texts:
        raise DataError(f"The corpus {source} holds no text.", "Give a file with one text per line.")
    return texts


def corpus_version(source: str) -> str:
    """Digest of the texts; for the bundled ones the digest of the archive they come from, which fetches nothing."""
    return bundled.PROSE.sha256 if source == ENCYCLOPEDIA else digest(corpus_texts(source))


def tasks_version() -> str:
    """Versions of what the built-in tasks make their examples from."""
    archives = f"prose {bundled.PROSE.sha256}, reviews {bundled.REVIEWS.sha256}"
    return f"reasoning-gym {version('reasoning-gym')}, {archives}"


def known_model(store: Store, name: str) -> ModelVersion | None:
    """The model as an earlier run of the same folder saw it, or None when it has to be loaded to know.

    A local folder is known again by its files' names, sizes and times; a model that was put in its place is another.
    """
    try:
        record = json.loads((store.folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("name") != name or record.get("looks") != model_looks(name):
        return None
    if "fingerprint" not in record or "tokenizer" not in record:
        return None
    return ModelVersion(str(record["fingerprint"]), str(record["tokenizer"]))


def keep_model(store: Store, name: str, model: ModelVersion) -> None:
    """Note the model for later runs of the folder."""
    record = {"name": name, "looks": model_looks(name), **asdict(model)}
    store.write_text("model.json", json.dumps(record, indent=2) + "\n")


def model_looks(name: str) -> str:
    """What tells one model from another without reading its weights."""
    if name in bundled.MODELS:
        return bundled.MODELS[name].sha256
    folder = Path(name)
    if not folder.is_dir():
        return ""
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    looks = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(looks).encode()).hexdigest()
