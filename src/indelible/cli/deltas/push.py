"""``indelible push``: send an edited model or an adapter to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.terminal import say

EXAMPLES = ("Examples:", "`indelible push adapter me/my-edit --private`", "`indelible push edited me/edited --dry-run`")


def push(
    folder: Annotated[Path, typer.Argument(help="Written by `indelible export` or `indelible apply`.")],
    repo: Annotated[str, typer.Argument(help="Repository of the hub, USER/NAME; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Send a folder with an edited model or an adapter to the Hugging Face hub.

    Its README.md is the model card: what was edited, with what, how many facts are answered, and how to take the edit
    out. A token is needed (`hf auth login`, or HF_TOKEN). No other command sends anything anywhere.
    """
    from indelible.care import push as care

    upload = care.prepared(folder, repo)
    if dry_run:
        for name, size in upload.files.items():
            say(f"{name} ({size:,} bytes)")
        say(f"{sum(upload.files.values()) / 1e6:.1f} MB would be sent to {repo}")
        return
    say(f"Pushed: {care.push(folder, repo, private=private)}")
