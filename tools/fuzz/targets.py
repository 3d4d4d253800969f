"""What is tried: each target makes a case of its desk and its generator, and says what it was given."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import yaml

from fuzz.material import CLAIMS, DATA, ROWS, Desk
from fuzz.mutations import NAMES, PATHS, Mutator, chosen, some_options

Case = tuple[Callable[[], Any], str]
"""What is done, and what it was given."""


@dataclass(frozen=True)
class Target:
    """``weight``: its part of all cases."""

    make: Callable[[Desk, Random], Case]
    weight: int


def study_file(desk: Desk, random: Random) -> Case:
    """A study's YAML, its structure and text damaged: read, its arms made, written and read again."""
    mutator = Mutator(random)
    return _read(desk, mutator.as_yaml(mutator.changed(random.choice(desk.studies))))


def study_options(desk: Desk, random: Random) -> Case:
    """A study of options that may well be allowed: what is not refused at once."""
    from indelible.exam.kind import further_kinds
    from indelible.study.design.settings import FactsSettings

    mutator = Mutator(random)
    facts = some_options(FactsSettings.model_json_schema(), random)
    for file in ("edited", "intrinsic", "source", "relations"):  # which seldom go together
        if random.random() < 0.8:
            facts.pop(file, None)
    arms = [_arm(f"a{place}", random) for place in range(random.randint(1, 3))]
    study = {"name": "x", "model": "m", "facts": facts, "arms": arms, "tuning": _tuning(random)}
    study |= {"exam": {"also": chosen(random, sorted(further_kinds()), 2)}} if random.random() < 0.3 else {}
    study |= {"as_published": True} if random.random() < 0.1 else {}
    if random.random() < 0.3:
        return _read(desk, mutator.as_yaml(mutator.changed(study, 1)))
    return _read(desk, yaml.safe_dump(study))


def _read(desk: Desk, text: str) -> Case:
    from indelible.study.design.arms import resolve_arms
    from indelible.study.design.config import load_config, parse_config
    from indelible.study.run.plan import make_plan
    from indelible.study.run.step import Versions

    path = desk.file("study.yaml", text)

    def case() -> None:
        config = load_config(str(path))
        parse_config(config.to_yaml(), "again", desk.inside)
        make_plan(config, resolve_arms(config), Versions("m", "t", {}, "f", "c", "t"))

    return case, text


def _arm(name: str, random: Random) -> dict[str, Any]:
    editor = random.choice([*_schemas("editors"), "none"])
    arm: dict[str, Any] = {"name": name, "editor": editor}
    if editor != "none":
        arm["options"] = some_options(_schemas("editors")[editor], random)
        arm["protocol"] = random.choice(("batch", "batch", "isolated", "task-vector"))
        arm["paraphrases"] = random.choice((0, 0, 1, 10**6))
        protections = _schemas("protections")
        arm["protect"] = {one: some_options(protections[one], random) for one in chosen(random, [*protections], 2)}
    if random.random() < 0.5:
        masks = ("none", "layers:0-9", "like:a*,b", "edited-layers:2", "norms", "head", random.choice(NAMES))
        arm["mask"] = "+".join(chosen(random, masks, 2))
    if random.random() < 0.5:
        arm["tuning"] = _tuning(random)
    return arm


def _tuning(random: Random) -> dict[str, Any]:
    schemas = _schemas("objectives")
    objective = random.choice([*schemas])
    found = some_options(schemas[objective], random) | {"objective": objective}
    for outside in ("data", "lm_eval"):  # others are for these
        found.pop(outside, None)
    if random.random() < 0.2:
        passed = random.choice(_trainer_arguments())
        found["trainer"] = {passed: random.choice((0, 1, 0.5, -1, True, "no", "1", 10**6, [], {}))}
    return found


@cache
def _schemas(kind: str) -> Mapping[str, Mapping[str, Any]]:
    from indelible.edits.editor import EDITORS
    from indelible.tuning.objective import OBJECTIVES
    from indelible.tuning.protection import PROTECTIONS

    made = {
        "editors": {name: EDITORS.get(name) for name in EDITORS.names()},
        "objectives": {name: OBJECTIVES.get(name).settings for name in OBJECTIVES.names()},
        "protections": {name: PROTECTIONS.get(name) for name in PROTECTIONS.names()},
    }
    return {name: model.model_json_schema() for name, model in made[kind].items()}


@cache
def _trainer_arguments() -> tuple[str, ...]:
    import dataclasses

    from transformers import TrainingArguments

    return tuple(field.name for field in dataclasses.fields(TrainingArguments) if field.init)


def assignments(desk: Desk, random: Random) -> Case:
    """``--set`` on a built-in study, and ``--each``."""
    from indelible.study.design.arms import resolve_arms
    from indelible.study.design.config import load_config, preset_names

    mutator = Mutator(random)
    keys = ("tuning.steps", "seeds", "arms.0.options.layers", "facts", "arms", "grid", "name", "tuning.trainer")
    more = ("tuning.trainer.adam_beta1", "arms.memit.protect", "model", "corpus", "claims", "exam.also", "by_model")
    typed = []
    for _ in range(random.randint(1, 3)):
        key = random.choice((*keys, *more)) if random.random() < 0.8 else mutator.damaged(random.choice(more))
        value = mutator.as_yaml(mutator.value()).strip() if random.random() < 0.7 else mutator.damaged("{a: [1, x]}")
        typed.append(f"{key}={value}".replace("\0", "") if random.random() < 0.95 else mutator.text().replace("\0", ""))
    study = random.choice(preset_names())
    return lambda: resolve_arms(load_config(study, typed)), f"{study} {typed!r}"


def claims_file(desk: Desk, random: Random) -> Case:
    """A file of claims, damaged."""
    from indelible.claims.claim import read_claims

    mutator = Mutator(random)
    text = mutator.as_yaml(mutator.changed(CLAIMS))
    path = desk.file("claims.yaml", text)
    return lambda: read_claims(path), text


def facts_file(desk: Desk, random: Random) -> Case:
    """Facts of any schema as JSON lines, a JSON array, CSV or TSV, with damaged rows among good ones."""
    from indelible.facts.read import read_facts

    mutator = Mutator(random)
    schema = random.choice([*ROWS])
    path = _rows_file(desk, mutator, "facts", [ROWS[schema]], [ROWS[schema], ROWS[random.choice([*ROWS])]])
    given = random.choice((None, None, schema, "indelible"))
    columns = {random.choice(("subject", "prompt", "id", "x")): mutator.text()} if random.random() < 0.1 else None

    def case() -> None:
        read = read_facts(path, schema=None if columns else given, columns=columns, strict=random.random() < 0.3)
        read.in_words()
        repr(read), read.to_frame()

    return case, f"{path.name} schema={given} columns={columns}\n{path.read_bytes()[:3000]!r}"


def data_file(desk: Desk, random: Random) -> Case:
    """Training data in any format, for any objective."""
    from indelible.tuning.objective import OBJECTIVES
    from indelible.tuning.own_data.data import data_task
    from indelible.tuning.settings import DataSettings
    from indelible.validation import validated

    mutator = Mutator(random)
    rows = random.choice(DATA)
    path = _rows_file(desk, mutator, "data", rows[:2], rows, parquet=True)
    objective = random.choice([name for name in OBJECTIVES.names() if OBJECTIVES.get(name).needs])
    settings: dict[str, Any] = {"source": str(path)}
    if random.random() < 0.2:
        settings |= {random.choice(("columns", "labels", "split", "config")): mutator.value()}

    def case() -> None:
        task = data_task(validated(DataSettings, settings, "data"), OBJECTIVES.get(objective))
        list(zip(range(5), task(0), strict=False))

    return case, f"{path.name} {objective} {settings!r:.500}\n{path.read_bytes()[:3000]!r}"


def _rows_file(
    desk: Desk, mutator: Mutator, name: str, changed: list[Any], good: list[Any], *, parquet: bool = False
) -> Path:
    random = mutator.random
    rows = [mutator.changed(row) for row in changed] + good
    random.shuffle(rows)
    suffix = random.choice(("jsonl", "jsonl", "json", "csv", "tsv", *(["parquet"] if parquet else [])))
    if suffix == "parquet":
        raw = io.BytesIO()
        try:
            pd.DataFrame([row for row in rows if isinstance(row, dict)]).to_parquet(raw)
        except Exception:  # what pandas cannot write, nobody has
            pd.DataFrame(good).to_parquet(raw)
        content = raw.getvalue()
    elif suffix in ("csv", "tsv"):
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter="," if suffix == "csv" else "\t")
        head = list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))
        writer.writerow(head)
        for row in rows:
            cells = row if isinstance(row, dict) else {}
            writer.writerow([_cell(cells.get(key, "")) for key in head])
        content = out.getvalue().encode("utf-8", "surrogatepass")
    elif suffix == "json":
        content = mutator.as_json(rows).encode("utf-8", "surrogatepass")
    else:
        content = "\n".join(mutator.as_json(row) for row in rows).encode("utf-8", "surrogatepass")
    if random.random() < 0.15:
        content = mutator.broken(content)
    return desk.file(f"{name}.{suffix}", content)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{json.dumps(value)[:5000]}"


def run_folder(desk: Desk, random: Random) -> Case:
    """A finished run whose YAML, JSON or tables are damaged: reported, listed, taken up again, planned from."""
    from indelible.cli.main import main
    from indelible.report.folder import read_run
    from indelible.study.run.store import Store

    mutator = Mutator(random)
    run = desk.inside / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(desk.kept / "run", run, copy_function=shutil.copyfile)
    run.chmod(0o755)
    name = random.choice(sorted(path.name for path in run.iterdir()))
    raw = (run / name).read_bytes()
    if name.endswith(".parquet"):
        raw = mutator.broken(raw)
    elif name == "config.yaml":
        raw = mutator.as_yaml(mutator.changed(yaml.safe_load(raw))).encode("utf-8", "surrogatepass")
    elif name.endswith(".json"):
        raw = mutator.as_json(mutator.changed(json.loads(raw))).encode("utf-8", "surrogatepass")
    else:
        lines = [mutator.changed(json.loads(line)) for line in raw.splitlines()]
        raw = "\n".join(map(mutator.as_json, lines)).encode("utf-8", "surrogatepass")
    desk.file(f"run/{name}", raw)
    what = random.randrange(16)

    def case() -> Any:
        if what == 0:
            return main(["report", str(run)])
        if what == 1:
            return main(["runs", str(run)])
        if what == 2:
            return main(["plan", "--gap", "0.1", "--from", str(run)])
        if what == 3:
            return main(["report", str(desk.kept / "run"), str(run), "--out", str(desk.inside / "both.html")])
        if what == 4:
            return Store(run).standing()
        found = read_run(run)
        return found.summary, found.changed

    return case, f"{name} {what}\n{raw[:3000]!r}"


def paths(desk: Desk, random: Random) -> Case:
    """Paths of every kind, where a command takes one."""
    from indelible.cli.main import main

    (desk.inside / "loop").unlink(missing_ok=True)
    (desk.inside / "loop").symlink_to("loop")
    path = Mutator(random).text() if random.random() < 0.4 else random.choice(PATHS)
    path = path.replace("\0", "")
    run = str(desk.kept / "run")
    commands = (
        *(["study", path, "--dry-run"], ["study", "quick", "--dry-run", "--out", path], ["facts", "--file", path]),
        *(
            ["report", path],
            ["report", run, "--claims", path],
            ["runs", path],
            ["plan", "--from", path],
        ),
        *(["revert", "--edit", path, "m", "--out", str(desk.inside / "o")], ["compose", path, path, "-o", "c"]),
        *(["study", "quick", "--dry-run", "--take", path], ["verify", path, path], ["audit", path, path]),
        *(["study", "quick", "--dry-run", "--set", f"{key}={json.dumps(path)}"] for key in _PATH_KEYS),
    )
    words = random.choice(commands)
    return lambda: main(words), repr(words)


_PATH_KEYS = ("facts.source", "facts.edited", "corpus", "model", "tuning.data.source", "arms.0.delta")


def words(desk: Desk, random: Random) -> Case:
    """Any command with any of its options, some given what they cannot take. None that trains, on no real model."""
    from indelible.cli.main import main

    mutator = Mutator(random)
    name, parameters = random.choice(_commands())
    typed = [name]
    for kind, option, is_flag in random.sample(parameters, random.randint(0, len(parameters))):
        value = random.choice((mutator.text(), "0", "-1", "2", "inf", str(2**70), "quick", "facts.jsonl"))
        if option in ("--out", "-o"):
            value = str(desk.inside / "out")
        typed += [value] if kind == "argument" else [option] if is_flag else [option, value]
    if name in ("study", "advise"):
        typed.append("--dry-run")
    typed = [word.replace("\0", "") for word in typed]
    return lambda: main(typed), repr(typed)


@cache
def _commands() -> list[tuple[str, list[tuple[str, str, bool]]]]:
    import typer

    from indelible.cli.program import app

    group: Any = typer.main.get_command(app)
    found = []
    for name, command in sorted(group.commands.items()):
        own = [
            (parameter.param_type_name, parameter.opts[0], bool(getattr(parameter, "is_flag", False)))
            for parameter in command.params
            if parameter.opts[0] not in ("--help", "--trust-remote-code", "--on")
        ]
        found.append((name, own))
    return found
