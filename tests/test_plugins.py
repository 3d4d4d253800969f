"""What another distribution adds: each thing is one file and one entry point, and a study shows it everywhere.

The distribution is a folder on the path: a package with a module for each thing, and the metadata by which Python finds
its entry points. The study runs in a process of its own, as a user's does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.edits.editor import EDITORS
from indelible.errors import PluginError, PluginWarning
from indelible.registry import Registry, listed
from indelible.report.exhibit import EXHIBITS
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.task import TASKS
from indelible.tuning.tuners.tuner import TUNERS
from tiny_studies import write_study

EDITOR = '''
"""Writes into the second layer alone."""
from indelible.edits.editor import EDITORS
from indelible.edits.solving.closed_form import ClosedFormEditor
from indelible.edits.solving.solve import ridge


@EDITORS.register("toy-editor")
class Toy(ClosedFormEditor):
    name = "toy-editor"

    def layers_in(self, layout):
        return (1,)

    def solver(self, bench, layers):
        factors = self.factorised(bench, layers)
        return lambda problem: ridge(problem.keys_dn, problem.residual_on, factors[problem.layer], 1.0)
'''
TASK = '''
"""Counting."""
from itertools import count

from indelible.tuning.task import TASKS, Example, Task


def counting(seed):
    return (Example(f"What follows {number}?", str(number + 1)) for number in count(seed % 100))


TASKS.register("toy-task")(Task(counting))
'''
MASK = '''
"""Freezes the first layer."""
from indelible.tuning.freezing.mask import MASKS, MaskEntry


def first_block(among):
    return {name for name in among.names if among.layout.layer_of(name) == 0}


MASKS.register("toy-mask")(MaskEntry(first_block, about_edit=False))
'''
OBJECTIVE = '''
"""The loss of the answer's last tokens."""
from pydantic import Field

from indelible.models.tokens import encode_prompt
from indelible.tuning.objective import NO_LOSS, OBJECTIVES, Features, Figure, Objective
from indelible.tuning.settings import TuningSettings


class ToySettings(TuningSettings):
    toy_tokens: int = Field(1, ge=1)


class Toy(Objective):
    name = "toy-objective"
    default_task = "toy-task"
    figures = (Figure("loss", "lower"),)
    settings = ToySettings

    def rows(self, tokenizer, example, settings, labels):
        ids = tuple(encode_prompt(tokenizer, example.text))
        return [Features(ids, (NO_LOSS,) * (len(ids) - settings.toy_tokens) + ids[-settings.toy_tokens :])]


OBJECTIVES.register("toy-objective")(Toy())
'''
QUESTION = '''
"""The prompt, shouted."""
from indelible.exam.kind import KINDS, Asked, QuestionKind


def shouted(fact, given):
    yield Asked(fact.text().upper(), *given.objects(fact), given.context)


KINDS.register("toy-question")(QuestionKind(shouted))
'''
MEASURE = '''
"""Edits whose first token is still the most probable one in a held-out wording."""
from indelible.numbers.measures import Rate, add

add(
    Rate(
        "toy-measure",
        "toy words kept",
        "edited",
        "paraphrase",
        "tuned",
        criterion="first_token",
        shows=("summary", "headline", "effects"),
    )
)
'''
EXHIBIT = '''
"""How much each arm knows: a picture, a table, and its numbers."""
from matplotlib.figure import Figure

from indelible.report.exhibit import Data, Grid, Heading, Picture, exhibit


def drawn(frame):
    figure = Figure()
    figure.subplots().barh(frame["arm"], frame["success"])
    return figure


@exhibit("toy-exhibit", place=65)
def toy(run):
    frame = run.answers.rows.groupby("arm")["success"].mean().reset_index()
    yield Heading("A toy's heading")
    yield Picture(lambda: drawn(frame), "Success by arm.", file="toy")
    yield Grid(frame.astype(str), "A toy's table", file="toy")
    yield Data("toy", frame)
'''
THINGS = {
    "editors": ("toy-editor", EDITOR),
    "tasks": ("toy-task", TASK),
    "masks": ("toy-mask", MASK),
    "objectives": ("toy-objective", OBJECTIVE),
    "questions": ("toy-question", QUESTION),
    "measures": ("toy-measure", MEASURE),
    "exhibits": ("toy-exhibit", EXHIBIT),
}


def write_distribution(folder: Path, name: str, things: Mapping[str, tuple[str, str]]) -> None:
    """A distribution with a module and an entry point for each thing, as if it were installed in a folder.

    Args:
        folder: to put on the path.
        name: of the distribution.
        things: by the last part of their entry-point group, their name and their module's source.
    """
    package = name.replace("-", "_")
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    entries = ""
    for group, (thing, source) in things.items():
        (folder / package / f"{group}.py").write_text(source)
        entries += f"[indelible.{group}]\n{thing} = {package}.{group}\n"
    (metadata / "entry_points.txt").write_text(entries)


def indelible(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own that finds the distribution in ``folder``."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "indelible", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path, "INDELIBLE_CACHE": str(folder / "cache")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    write_distribution(folder, "toy-things", THINGS)
    return folder


@pytest.fixture
def study(plugins: Path, settings: dict[str, Any], tmp_path: Path) -> Path:
    """A finished study of everything that the distribution adds."""
    settings["editors"] = {"toy-editor": {"covariance_tokens": 512, "steps": 20}}
    settings["tuning"] |= {"objective": "toy-objective", "toy_tokens": 2}
    settings["exam"]["also"] = ["toy-question"]
    settings["arms"] = [
        {"name": "toy", "editor": "toy-editor"},
        {"name": "toy-frozen", "editor": "toy-editor", "mask": "toy-mask"},
        {"name": "control", "editor": "none"},
    ]
    done = indelible(plugins, "study", write_study(tmp_path / "toy.yaml", settings), "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_a_study_shows_what_a_distribution_adds(plugins: Path, study: Path) -> None:
    runs = pd.read_parquet(study / "runs.parquet").set_index("arm")
    assert dict(runs["editor"]) == {"toy": "toy-editor", "toy-frozen": "toy-editor", "control": "none"}
    assert dict(runs["mask"]) == {"toy": "none", "toy-frozen": "toy-mask", "control": "none"}
    assert set(runs["objective"]) == {"toy-objective"}
    tuning = [json.loads(text) for text in runs["tuning"]]
    assert {(options["toy_tokens"], options["task"]) for options in tuning} == {(2, None)}
    assert set(json.loads(runs["update_norms"]["toy"])) == {"model.layers.1.mlp.down_proj.weight"}
    for line in json.loads((study / "summary.json").read_text()):
        assert (line["toy-measure"] is None) == (line["arm"] == "control")
    answers = pd.read_parquet(study / "facts.parquet")
    shouted = answers[answers["kind"] == "toy-question"]
    assert set(shouted["phase"]) == {"base", "edited", "tuned"} and shouted["prompt"].str.isupper().all()
    effects = pd.read_csv(study / "tables" / "effects.csv")
    assert "toy-measure" in set(effects["measure"])
    shown = indelible(plugins, "study", "--help").stdout
    assert all(name in shown for name, _ in THINGS.values())
    page = (study / "report.html").read_text()
    for name in ("toy-editor", "toy-objective", "toy-mask", "toy words kept", "A toy&#39;s heading"):
        assert name in page, name
    assert (
        page.index("Results</h2>") < page.index("toy&#39;s heading</h2>") < page.index("Every fact in every arm</h2>")
    )
    for name in ("figures/toy.svg", "figures/toy.pdf", "tables/toy.tex"):
        assert (study / name).stat().st_size > 0
    assert set(pd.read_csv(study / "tables" / "toy.csv")["arm"]) == set(runs.index)


BROKEN = {
    "raise RuntimeError('too old')": "RuntimeError: too old",
    "": "registers no toy of that name",
    "from test_plugins import TOYS\n\nTOYS.register('own')('another')": "two toys are named 'own'",
    "from test_plugins import TOYS\n\nTOYS.register('none')('a word of ours')": "two toys are named 'none'",
}
TOYS: Registry[str]


@pytest.mark.parametrize(("source", "reason"), BROKEN.items())
def test_a_plug_in_that_cannot_be_loaded_is_named_once_and_is_an_error_only_where_it_is_asked_for(
    tmp_path: Path, source: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"bad-toys-{list(BROKEN).index(source)}"
    write_distribution(tmp_path, name, {"toys": ("mine", source)})
    monkeypatch.syspath_prepend(str(tmp_path))
    toys: Registry[str] = Registry("toy", group="indelible.toys", taken=["none"])
    monkeypatch.setattr("test_plugins.TOYS", toys, raising=False)
    toys.register("own")("ours")
    assert toys.get("own") == "ours"
    said = rf"The toy 'mine' of the distribution '{name}' cannot.*{reason}"
    with pytest.warns(PluginWarning, match=said) as warned:
        assert [toys.names(), toys.names()] == [["own"], ["own"]]
    assert len(warned) == 1
    with pytest.raises(PluginError, match=said):
        toys.get("mine")


def test_words_of_studies_are_no_names() -> None:
    for registry, word in ((EDITORS, "none"), (TUNERS, "full"), (TUNERS, "lora"), (TUNERS, "dora")):
        with pytest.raises(ValueError, match=f"two {registry.kind}s are named '{word}'"):
            registry.register(word)(EDITORS)


def test_on_the_command_line_a_broken_plug_in_is_one_line_and_the_study_goes_on(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    write_distribution(tmp_path, "bad-things", {"editors": ("toy-editor", "import nothing_like_that")})
    file = write_study(tmp_path / "study.yaml", settings)
    done = indelible(tmp_path, "study", file, "--out", tmp_path / "run", "--dry-run")
    assert done.returncode == 0 and "8 steps: 0 done" in done.stdout
    said = r"Warning: The editor 'toy-editor' of the distribution 'bad-things' cannot be.* It is left out\. .*\n"
    assert re.fullmatch(said, done.stderr)


def test_names_that_are_listed_without_loading_are_those_of_what_is_loaded() -> None:
    for registry in (EDITORS, OBJECTIVES, TASKS, EXHIBITS):
        assert listed(registry.packages[0], registry.group) == registry.names()
