"""An edited model or an adapter to the hub. Nothing reaches out but ``push`` itself, which nothing else calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from indelible.care.card import CARD
from indelible.errors import ConfigError, StoreError
from indelible.files import UNFINISHED
from indelible.models.merging import SETTINGS, base_of, is_adapter


@dataclass(frozen=True)
class Upload:
    """What would be sent: a folder's files, by their path in it, with their bytes."""

    folder: Path
    files: dict[str, int]


def prepared(folder: Path | str, repo: str) -> Upload:
    """What ``push`` would send, checked; nobody is asked for it.

    Raises:
        StoreError: if the folder is neither an edited model nor an adapter with a card, or names a folder as its model.
        ModelError: if an adapter does not say which model it belongs to.
        ConfigError: if the hub has no such names.
    """
    folder = Path(folder)
    if not (is_adapter(folder) or (folder / "config.json").is_file()):
        raise StoreError(
            f"{folder} holds neither a model nor an adapter.",
            "Give a folder that `indelible export` or `indelible apply` wrote.",
        )
    if not (folder / CARD).is_file():
        raise StoreError(
            f"{folder} has no {CARD} that says what was edited.", "`indelible export` and `indelible apply` write one."
        )
    if is_adapter(folder):
        base = base_of(folder)
        if Path(base).is_dir() or base.startswith((".", "/", "~")) or base.count("/") > 1 or "\\" in base:
            raise StoreError(
                f"The adapter in {folder} names a folder as its model, {base!r}, which nobody else has.",
                f"Put the model's hub id in its {SETTINGS}, and in {CARD}.",
            )
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(f"{repo!r} is no name of a repository: {reason}.", "Write USER/NAME.") from None
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith((".", UNFINISHED)) for part in path.relative_to(folder).parts)
    }
    return Upload(folder, files)


def push(folder: Path | str, repo: str, *, private: bool = False) -> str:
    """Send a folder with an edited model or an adapter to the hub, into a repository that is made where there is none.

    Args:
        repo: its name there, USER/NAME.
        private: whether a new one is seen by its owner alone.

    Returns:
        the address of the commit.

    Raises:
        ConfigError: if there is no token, or as ``prepared``.
        StoreError: if the hub refuses or is not reached, or as ``prepared``.
    """
    upload = prepared(folder, repo)
    token = huggingface_hub.get_token()
    if token is None:
        raise ConfigError(
            "There is no token for the hub.", "Log in (`hf auth login`) or set HF_TOKEN to one that may write."
        )
    api = huggingface_hub.HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        sent = api.upload_folder(
            repo_id=repo,
            folder_path=upload.folder,
            allow_patterns=list(upload.files),
            commit_message=f"{upload.folder.name}: edited with indelible",
        )
    except Exception as error:  # the hub's client and what it stands on raise a dozen kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")
        raise StoreError(
            f"{upload.folder} was not pushed to {repo!r}: {reason}.", "Check the name, the token and the connection."
        ) from error
    return str(sent.commit_url)
