"""``indelible lm-eval``: the exam of edited facts as tasks of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import FORMAT_HELP, Columns, Schema, read_file
from indelible.cli.terminal import say
from indelible.numbers.words import counted

EXAMPLES = (
    "Examples:",
    "`indelible lm-eval my.jsonl -o tasks`",
    "`lm_eval --model hf --model_args pretrained=edited --include_path tasks --tasks indelible`",
    *FORMAT_HELP,
)


def lm_eval(
    facts: Annotated[Path, typer.Argument(help="Facts with new objects (JSONL, JSON, CSV; see below).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the tasks.")],
    schema: Schema = None,
    columns: Columns = None,
) -> None:
    """Write facts as the task group `indelible` of EleutherAI's lm-evaluation-harness.

    `indelible_efficacy` asks the facts' own prompts, `indelible_generalization` their held-out wordings,
    `indelible_locality` their neighbours. `success` is the exam's: the greedy continuation begins with the whole
    target. The folder can be moved; where it is used, indelible has to be installed.
    """
    from indelible.harness.tasks import GROUP, write_tasks

    written = write_tasks(read_file(facts, schema, columns), out)
    told = ", ".join(f"{GROUP}_{name} ({counted(count, 'question')})" for name, count in written.items())
    say(f"Tasks: {out}: {told}")
    say(f"lm_eval --model hf --model_args pretrained=MODEL --include_path {out} --tasks {GROUP}")
