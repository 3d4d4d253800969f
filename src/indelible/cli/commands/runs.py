"""``indelible runs``: which studies there are, and where they stand."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from indelible.cli.options import AsJson
from indelible.cli.terminal import say
from indelible.errors import StoreError
from indelible.numbers.words import MISSING, counted

EXAMPLES = (
    "Examples:",
    "`indelible runs` # all studies in runs/",
    "`indelible runs elsewhere --json`",
)


def runs(
    folder: Annotated[Path, typer.Argument(help="A folder of run folders, or one of them.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List studies, the latest first: how many of their steps are done, whether they run, and where the report is.

    A study is *finished* when all its steps are done, *failed* when some could not be, *damaged* when its tables are no
    longer as it wrote them, *running* while a process works on it, and else *stopped*: the command that began it goes
    on with it.
    """
    from indelible.cli.display import show_table

    if not folder.is_dir() and folder != Path("runs"):
        raise StoreError(f"There is no folder {folder}.", "Give a folder with runs in it.")
    found = sorted(filter(None, map(_line, [folder, *folder.glob("*/")])), key=lambda line: -line["last"])
    if as_json:
        say(json.dumps(found, indent=2))
        return
    if not found:
        say(f"No study is in {folder}. `indelible study quick` makes one in runs/quick.")
        return
    rows = [
        [
            line["name"],
            line["model"],
            f"{line['done']} of {MISSING if line['steps'] is None else line['steps']}",
            line["state"],
            f"{datetime.fromtimestamp(line['last']):%Y-%m-%d %H:%M}",
            line["report"] or line["folder"],
        ]
        for line in found
    ]
    show_table(["study", "model", "steps", "state", "last", "report, or folder"], rows)


def _line(folder: Path) -> dict[str, Any] | None:
    from indelible.study.run.store import Store

    try:
        found = Store(folder).standing()
    except StoreError as error:
        say(f"{folder} is left out: {error.what}", err=True)
        return None
    if found is None:
        return None
    if found.unreadable:
        lines = counted(found.unreadable, "damaged line")
        say(f"{folder}: {lines} of events.jsonl passed over", err=True)
    if found.spoiled:
        say(f"{folder}: not as the study wrote it: {', '.join(found.spoiled)}. Run the study again.", err=True)
    return {
        "folder": str(folder),
        "name": found.name,
        "model": found.model,
        "done": found.done,
        "steps": found.of,
        "state": found.state,
        "last": found.last,
        "report": None if found.report is None else str(found.report),
    }
