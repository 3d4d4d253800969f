"""``indelible study``: run a study, or show what it would do."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.completing import models, presets
from indelible.cli.options import Trust
from indelible.cli.terminal import say
from indelible.documents import LARGEST
from indelible.errors import ConfigError, Stopped
from indelible.numbers.words import counted, duration
from indelible.registry import listed

if TYPE_CHECKING:
    from indelible.study.design.settings import Share, StudyConfig
    from indelible.study.run.run import Outcome, Preview

EXAMPLES = (
    "Examples:",
    "`indelible study quick` # runs the built-in study into runs/quick",
    "`indelible study my.yaml --dry-run` # shows the steps, and which are already done",
    "`indelible study quick --set tuning.steps=20 --set arms.memit.mask=edited-weights --out runs/try`",
    "`indelible study quick --json > summary.json`",
    "`indelible study my.yaml --on ray://head:10001 --each cpus=8 --each gpus=1 --out /shared/runs/my`",
)
SLURM = "slurm"
SOME_FAILED = 1


def names() -> Sequence[str]:
    """What the help says about names."""
    from indelible.exam.kind import further_kinds
    from indelible.numbers.measures import MEASURES
    from indelible.tuning.freezing.mask import MASKS

    known: dict[str, Iterable[str]] = {
        "Editors": [*listed("indelible.edits.editors", "indelible.editors"), "none"],
        "Objectives": listed("indelible.tuning.objectives", "indelible.objectives"),
        "Tasks": listed("indelible.tuning.tasks", "indelible.tasks"),
        "Masks": MASKS,
        "Protections": listed("indelible.tuning.protections", "indelible.protections"),
        "Kinds of questions": further_kinds(),
        "Measures": MEASURES,
        "Exhibits": listed("indelible.report.exhibits", "indelible.exhibits"),
    }
    return [f"{kind}: {', '.join(names)}." for kind, names in known.items()]


def study(
    name_or_file: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE",
            autocompletion=presets,
            help="A built-in study (quick, paper, decay, objectives, freezing, paraphrases) or a YAML file.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only show the steps, done and to be done, and what they cost here, or with --on there."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary (or the steps, with --dry-run) as JSON.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. tuning.steps=5. Repeatable."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another model: a bundled name, a folder or a hub id.", autocompletion=models)
    ] = None,
    trust: Trust = False,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=LARGEST, help="Seeds in place of the study's. Repeatable."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Let a run folder of other settings take these; rerun only what changed.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="as many as suit cores and memory; 1 on an accelerator",
            help="Steps done at a time, each in a process of its own; the cores are divided among them.",
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="ray|ADDRESS|slurm",
            help="Do the steps on a Ray cluster: `ray` takes the one of RAY_ADDRESS or starts one on this machine, "
            "`auto` or ray://HOST:10001 one that stands. --out has to lie where all its machines see it. `slurm` "
            "writes scripts for sbatch beside --out, by the study's `slurm:` settings, and submits the first of them.",
        ),
    ] = None,
    each: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What a worker takes of the cluster: cpus=4, gpus=0.5, memory=24 (GiB). Repeatable.",
        ),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do the arms of part I of N alone, in a run folder of its own.")
    ] = None,
    take: Annotated[
        list[Path] | None,
        typer.Option(help="A run folder whose finished steps are taken where they are this study's. Repeatable."),
    ] = None,
) -> None:
    """Edit facts in a model, fine-tune it, and report how much of the edits is retained.

    A study that was interrupted goes on where it stopped when the same command is given again.
    """
    from indelible.study.design.config import load_config

    notes: list[str] = []
    shorthands = {"model": model, "seeds": seed, "trust_remote_code": trust or None}
    typed = [f"{key}={json.dumps(value)}" for key, value in shorthands.items() if value not in (None, [])]
    config = load_config(name_or_file, [*(settings or ()), *typed], note=notes.append)
    folder = out or Path("runs") / config.name
    share, mine = _share(on, each or []), _part(part)
    if on == SLURM and (part or take):
        raise ConfigError("The scripts for SLURM divide the study themselves.", "Leave --part and --take out.")
    if dry_run or on == SLURM:
        from indelible.study.run.run import preview_study

        there = None if on == SLURM else on
        preview = preview_study(
            config, folder, update=update, workers=workers, on=there, each=share, part=mine, take=take or ()
        )
        if dry_run:
            _show_preview(preview, folder, notes, as_json)
        if on == SLURM:
            _submit(config, folder, preview, dry_run, update)
        return
    for note in notes:
        say(note, err=True)
    how = {"update": update, "workers": workers, "on": on, "each": share, "part": mine, "take": take or ()}
    outcome = _run(config, folder, as_json, **how)
    if as_json:
        say(json.dumps(outcome.summary, indent=2))
    else:
        _show_outcome(outcome)
    for failure in outcome.failures:
        skipped = f" (skipped for it: {', '.join(failure.skipped)})" if failure.skipped else ""
        say(f"Failed: {failure.title}: {failure.error}{skipped}", err=True)
    if outcome.failures:
        say("Finished steps are kept; the same command tries the failed ones again.", err=True)
        raise typer.Exit(SOME_FAILED)


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ConfigError(f"--part {text!r} is no part.", "Write it as 2/8, for the second of eight.")
    return int(number), int(of)


def _submit(config: StudyConfig, folder: Path, preview: Preview, dry_run: bool, update: bool) -> None:
    """Write a SLURM cluster's scripts, and give it the first unless this is a trial."""
    from indelible.study.run.executors.slurm import write_scripts

    sbatch = shutil.which("sbatch")
    if sbatch is None and not dry_run:
        raise ConfigError("There is no sbatch here.", "Run it on a cluster's login node, or give --dry-run.")
    parts = len({(run.edit or run.base).key for run in preview.plan.runs})
    scripts = write_scripts(config, folder, parts, update=update)
    one, many = scripts.how
    say(f"Written: {scripts.settings}, and scripts that run it.", err=True)
    say(f"One job of {counted(config.slurm.nodes, 'machine')}: {one}", err=True)
    say(f"An array of {counted(parts, 'task')}, and what puts their steps together: {many}", err=True)
    if sbatch is not None and not dry_run and (code := subprocess.run([sbatch, str(scripts.ray)]).returncode):
        raise typer.Exit(code)


def _share(on: str | None, each: Sequence[str]) -> Share:
    from indelible.study.design.config import assign
    from indelible.study.design.settings import Share
    from indelible.validation import validated

    if each and on in (None, SLURM):
        raise ConfigError(
            f"--each {each[0]} is for workers of a Ray cluster.",
            "Give --on ray; for SLURM write `slurm: {each: ...}` into the study.",
        )
    typed: dict[str, Any] = {}
    for one in each:
        assign(typed, one, "--each")
    return validated(Share, typed, "each")


def _run(config: StudyConfig, folder: Path, as_json: bool, **how: Any) -> Outcome:
    from indelible.study.run.run import run_study
    from indelible.watching import watching

    # With --json nothing but the JSON may reach stdout, whatever a library prints.
    quiet = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with quiet, watching() as watcher:
            return run_study(config, folder, watcher=watcher, **how)
    except KeyboardInterrupt:
        raise Stopped(f"Finished steps are kept in {folder}; give the same command again to go on.") from None


def _show_preview(preview: Preview, folder: Path, notes: Sequence[str], as_json: bool) -> None:
    from indelible.edits.editor import EDITORS

    steps = [
        {"step": step.title, "kind": step.kind, "key": step.key, "done": step.key in preview.reused}
        for step in preview.plan.steps
    ]
    if as_json:
        say(json.dumps(steps, indent=2))
        return
    shared = preview.config.as_dict()
    # With what stands behind `published: true`.
    editors = {
        f"editors.{name}": EDITORS.get(name)(**options).model_dump(mode="json", exclude_unset=True)
        for name, options in shared["editors"].items()
    }
    for name in ("model", "seeds", "facts", "tuning", "exam", *editors):
        say(f"{name}: {_flow({**shared, **editors}[name])}")
    # Steps that differ in the number of the copy alone, and are all done or all not, are one line.
    for _, same in itertools.groupby(steps, lambda step: (str(step["step"]).partition(", copy ")[0], step["done"])):
        first, *more = same
        copies = f" and {len(more)} further copies" if more else ""
        say(f"{'reuse' if first['done'] else 'run  '}  {first['step']}{copies}")
    for arm, frozen in preview.masks.items():
        say(f"frozen in {arm}: {frozen}")
    done = sum(bool(step["done"]) for step in steps)
    for line in (*notes, *preview.notes, preview.cost):
        say(line)
    say(f"{counted(len(steps), 'step')}: {done} done in {folder}, {len(steps) - done} would run.")


def _flow(value: Any) -> str:
    """A setting as YAML on one line; what is left to its default is left out."""
    import yaml

    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item is not None}
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip().removesuffix("\n...")


def _show_outcome(outcome: Outcome) -> None:
    if outcome.report is None:
        return
    from indelible.cli.display import show_headline

    show_headline(outcome.summary)
    for ruling in json.loads((outcome.folder / "claims.json").read_text(encoding="utf-8")):
        family = f" ({ruling['family']})" if ruling["family"] else ""
        say(f"{ruling['decision']}: {ruling['sentence']}{family} {ruling['why']}")
    say(f"Report: {outcome.report}  ({duration(outcome.seconds)})")
