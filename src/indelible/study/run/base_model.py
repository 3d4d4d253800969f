"""The one model of a study: loaded once, lent to every step, and the base model again after each of them.

Whole models are never written to disk. One copy of the base weights is kept in memory instead; after a step that may
have changed anything it is put back, and checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.beside.side_term import quantised_with
from indelible.edits.deltas.delta import Edit
from indelible.errors import ModelError
from indelible.exam.proof import Ways
from indelible.files import whole_file
from indelible.hashes import read_sealed, sealed
from indelible.models.bundled import fetch as bundled
from indelible.models.fingerprint import Identity, tensors_of
from indelible.models.layout import Layout, find_layout
from indelible.models.load import LoadedModel, load
from indelible.study.run.sources import digest

_SEALED = "sealed"
# Weights, settings, and the files of all kinds of tokenizers.
_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "*.tiktoken")


@dataclass(frozen=True)
class ModelVersion:
    """What tells one model from another: the fingerprint of its weights, the digest of its tokenizer."""

    fingerprint: str
    tokenizer: str


class LentModel:
    """A base model (see models.load) with what the steps of a study need to know about it.

    Raises:
        ModelError, LayoutError: the model cannot be had, or its parts cannot be found.
    """

    def __init__(self, name: str, note: Callable[[str], None], *, trust_remote_code: bool = False) -> None:
        note(f"loading {name}")
        loaded: LoadedModel = load(name, trust_remote_code=trust_remote_code)
        self._model: PreTrainedModel = loaded.model
        self.tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        self.layout: Layout = find_layout(self._model)
        self.identity = Identity.of(self._model)
        self.fingerprint: str = self.identity.fingerprint
        self.version = ModelVersion(self.fingerprint, tokenizer_digest(self.tokenizer, self._model))
        self.ways = Ways()
        self._base = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors_of(self._model)}
        self._attributes = frozenset(vars(self._model))
        self._trainable = {name: weight.requires_grad for name, weight in self._model.named_parameters()}

    @contextmanager
    def base_model(self) -> Iterator[PreTrainedModel]:
        """The base model; whatever is done to it inside the block is undone at its end, bit for bit."""
        try:
            yield self._model
        finally:
            self._restore()

    def holding(self, edit: Edit | None, *, quantised: bool = False) -> AbstractContextManager[object]:
        """Keep an edit in the base model inside the block, which may be quantised for it; None stands for no edit."""
        if quantised:
            return quantised_with(self._model, edit, known_fingerprint=self.fingerprint)
        return nullcontext() if edit is None else edit.applied(self._model, known_fingerprint=self.fingerprint)

    def _restore(self) -> None:
        model = self._model
        # What a trainer hangs on a model (a wrapped ``forward``, say) would change what later steps compute.
        for attribute in frozenset(vars(model)) - self._attributes:
            delattr(model, attribute)
        model.eval()
        for name, weight in model.named_parameters():
            weight.grad = None
            weight.requires_grad_(self._trainable[name])
        found = dict(tensors_of(model))
        if found.keys() != self._base.keys():
            raise ModelError(
                f"A step left the model with other weights: {sorted(found.keys() ^ self._base.keys())[:3]}.",
                "Report this as a defect.",
            )
        with torch.no_grad():
            for name, kept in self._base.items():
                kept = kept.to(found[name].device)
                if not torch.equal(found[name], kept):
                    found[name].copy_(kept)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> str:
    """64 hex digits for all that turns text into tokens and back, and for the tokens that end an answer.

    To be taken of a fresh tokenizer: some keep the padding and cutting of their last call.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    settings = ("clean_up_tokenization_spaces", "add_prefix_space", "split_special_tokens", "add_bos_token")
    owners = (getattr(model, "generation_config", None), model.config, tokenizer)
    return digest(
        {
            "kind": type(tokenizer).__name__,
            "tokens": sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str(),
            "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            "settings": {name: str(getattr(tokenizer, name, None)) for name in (*settings, "add_eos_token")},
            "ends": [str(getattr(owner, "eos_token_id", None)) for owner in owners],
            "pad": tokenizer.pad_token_id,
        }
    )


def known_model(folder: Path, name: str) -> ModelVersion | None:
    """The model as an earlier run of the same folder saw it, or None when it has to be loaded to know.

    A local folder is known again by its files' names, sizes and times; a model that was put in its place is another.
    """
    try:
        record = read_sealed(folder / "model.json", besides=_SEALED)
        if (record["name"], record["looks"]) != (_named(name), _looks(name)):
            return None
        return ModelVersion(str(record["fingerprint"]), str(record["tokenizer"]))
    except KeyError:  # none there, or damaged
        return None


def keep_model(folder: Path, name: str, model: ModelVersion) -> None:
    """Note the model for later runs of the folder."""
    record = {"name": _named(name), "looks": _looks(name), **asdict(model), _SEALED: True}
    with whole_file(folder / "model.json") as path:
        path.write_text(json.dumps(sealed(record), indent=2) + "\n", encoding="utf-8")


def _named(name: str) -> str:
    """A model's name; of a folder, its own, which does not say where it lies."""
    return Path(name).name if Path(name).is_absolute() else name


def _looks(name: str) -> str:
    """What tells one model from another without reading its weights."""
    if name in bundled.MODELS:
        return f"{bundled.MODELS[name].sha256}, unpacking {bundled.UNPACKING}"
    folder = Path(name)
    if not folder.is_dir():
        return ""
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    looks = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(looks).encode()).hexdigest()
