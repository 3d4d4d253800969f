"""The README and the pages: what they show is there, what they type is understood, and their Python runs.

Python runs on a tiny model in place of the real one; commands are parsed with their options' values, and studies are
read and planned as far as that goes without a model.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

import pytest
import typer
import yaml
from markdown_it import MarkdownIt

import indelible
import reference
from indelible.claims.claim import read_claims
from indelible.cli.program import app
from indelible.edits.editor import EDITORS
from indelible.exam.kind import KINDS
from indelible.facts.read import read_facts
from indelible.numbers.measures import MEASURES
from indelible.registry import Registry
from indelible.report.exhibit import EXHIBITS
from indelible.study.design.arms import resolve_arms
from indelible.study.design.config import assign, load_config, parse_config, preset_names
from indelible.study.design.settings import StudyConfig
from indelible.tuning.freezing.mask import MASKS
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.own_data.data import data_task
from indelible.tuning.protection import PROTECTIONS
from indelible.tuning.settings import DataSettings, TuningSettings
from indelible.tuning.task import TASKS
from indelible.tuning.tuners.tuner import TUNERS
from indelible.validation import validated

ROOT = Path(__file__).parents[1]
WIDTH = 100
REGISTRIES: tuple[Registry[Any], ...] = (
    *(EDITORS, OBJECTIVES, TASKS, MASKS, MEASURES, PROTECTIONS, KINDS, EXHIBITS, TUNERS),
)
PROGRAM = typer.main.get_command(app)


@dataclass(frozen=True)
class Block:
    """A block of code: where it stands, its language, the file that the reader is to make of it, and what it says."""

    page: str
    language: str
    title: str
    text: str


@cache
def written() -> dict[str, str]:
    """Pages that were written by hand, by their path in the repository."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


@cache
def pages() -> dict[str, str]:
    """All of them, those made from the code included."""
    return written() | {f"docs/{name}": made() for name, made in reference.PAGES.items()}


@cache
def blocks() -> tuple[Block, ...]:
    found = []
    for page, text in pages().items():
        for token in MarkdownIt().parse(text):
            if token.type == "fence":
                language, _, rest = token.info.partition(" ")
                title = re.fullmatch(r'(?:title="(.+)")?', rest)
                assert title, f"{page}: {token.info!r} says more than a title"
                found.append(Block(page, language, title[1] or "", token.content))
    return tuple(found)


def of(language: str) -> list[Block]:
    """The blocks of a language."""
    return [block for block in blocks() if block.language == language]


@pytest.fixture(autouse=True)
def _registries_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page registers is gone after the test."""
    for registry in REGISTRIES:
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a reader who made every file that the pages give."""
    for block in blocks():
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(block: Block, names: dict[str, Any], model: Path | None = None) -> None:
    """Run a block of Python as a module of its own, with another model in place of the real one."""
    text = block.text if model is None else block.text.replace("smollm2-135m", str(model))
    exec(compile(text, block.page, "exec", dont_inherit=True), names)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    kinds = {"python", "bash", "yaml", "json", "csv", "toml"}
    assert {block.language for block in blocks() if block.page != "CONTRIBUTING.md"} <= kinds | {"console"}
    assert kinds <= {block.language for block in blocks()}


def test_python_compiles_and_what_it_names_is_there() -> None:
    for node in (node for block in of("python") for node in ast.walk(ast.parse(block.text, block.page))):
        if isinstance(node, ast.Import):
            for name in node.names:
                import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            assert all(hasattr(import_module(node.module or ""), name.name) for name in node.names), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "indelible":
            assert node.attr in indelible.__all__


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/keep.md", "docs/start.md"])
def test_python_runs_on_a_tiny_model(page: str, taught: Path, desk: Path) -> None:
    (desk / "edited").symlink_to(taught / "model")
    names: dict[str, Any] = {}
    for block in blocks():
        if block.page == page and block.language == "python":
            run(block, names, model=taught / "model")
    assert names["loaded"].model.num_parameters() < 1e6


def test_the_rows_of_a_run_are_read_as_shown(desk: Path) -> None:
    (desk / "runs" / "quick").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "data" / "quick.parquet", desk / "runs" / "quick" / "facts.parquet")
    (block,) = (one for one in blocks() if one.page == "docs/study.md" and one.language == "python")
    *setting, last = ast.parse(block.text).body
    names: dict[str, Any] = {}
    exec(compile(ast.Module(setting, []), block.page, "exec"), names)
    shown = eval(ast.unparse(last), names)
    assert {"edited", "tuned"} <= set(shown.columns) and shown.max().max() <= 1


def register_what_the_pages_add() -> None:
    for block in blocks():
        if block.page == "docs/extend.md" and block.language == "python":
            run(block, {"__name__": "extend"})


def test_what_the_page_on_plug_ins_adds_is_there_and_edits(taught: Path, own_cache: None) -> None:
    before = {registry.kind: set(registry.names()) for registry in REGISTRIES}
    register_what_the_pages_add()
    added = {name for registry in REGISTRIES for name in set(registry.names()) - before[registry.kind]}
    assert added == {"gentle", "counting", "first-block", "first_token_elsewhere", "known"}
    assert next(iter(TASKS.get("counting")(3))).answer == "4"
    loaded = indelible.load(str(taught / "model"))
    facts = read_facts(taught / "facts.jsonl").facts[:2]
    given: dict[str, Any] = {"layers": (1,), "steps": 3, "covariance_tokens": 512, "bystanders": 0}
    norms = []
    for weight in (1.0, 1000.0):
        edit = indelible.edit(
            loaded, facts, "gentle", corpus=str(taught / "corpus.txt"), weight_per_fact=weight, **given
        )
        (change,) = edit.deltas.values()  # type: ignore[attr-defined]
        norms.append(float(change.difference().norm()))
    assert norms[0] > norms[1] > 0, "what preserves more changes less"
    for group in {registry.group for registry in REGISTRIES}:
        assert f"`{group}`" in pages()["docs/extend.md"]
    (made,) = (tomllib.loads(block.text) for block in blocks() if block.language == "toml" and "extend" in block.page)
    (entry,) = made["project"]["entry-points"]["indelible.editors"].values()
    assert f"my-editors/{entry.replace('.', '/')}.py" in {block.title for block in blocks()}


def lines_of(block: Block) -> Iterator[str]:
    text = block.text.replace("\\\n", " ")
    yield from (line for line in text.splitlines() if shlex.split(line, comments=True))


def test_every_command_is_understood(desk: Path) -> None:
    register_what_the_pages_add()
    for block in of("bash"):
        for line in lines_of(block):
            understand(line)


def understand(line: str) -> None:
    """Fail unless a line of a shell means something here."""
    words = shlex.split(line, comments=True)
    if ">" in words:
        words = words[: words.index(">")]
    if "accelerate" in words[:1]:
        words = words[words.index("-m") + 1 :]
    program, *rest = words
    if program == "indelible":
        typed(rest)
    elif program == "python":
        assert Path(rest[0]).is_file() or (ROOT / rest[0]).is_file(), line
    elif program == "make":
        assert all(re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in rest), line
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.findall(r"(?:\.|indelible)\[([\w-]+)\]", line)
        assert rest[0] == "install" and set(named) <= set(extras), line
        assert "--constraint" not in rest or (ROOT / rest[rest.index("--constraint") + 1]).is_file()
    else:
        assert line.startswith(("python3 -m venv .venv", ". .venv/bin/activate")), line


def typed(words: list[str], *, complete: bool = True) -> None:
    """Parse what is typed after the program's name, and check what a study or an editor is set to."""
    group: Any = PROGRAM
    if words and words[0].startswith("-"):
        assert words[0] in {option for one in group.params for option in one.opts} | {"--help"}, words
        return
    command = group.get_command(typer.Context(group), words[0])
    assert command is not None, words
    try:
        given = command.make_context(words[0], list(words[1:])).params
    except Exception as error:
        if complete or type(error).__name__ != "MissingParameter":
            raise
        return
    if words[0] == "study":
        overrides = [*(given["settings"] or ()), *([f"model={given['model']}"] if given["model"] else ())]
        if given["name_or_file"] in preset_names() or Path(given["name_or_file"]).is_file():
            resolve_arms(load_config(given["name_or_file"], overrides))
        else:
            assert given["name_or_file"].endswith(".yaml"), words
    elif words[0] == "edit":
        options: dict[str, Any] = {}
        for setting in given["settings"] or ():
            assign(options, setting)
        validated(EDITORS.get(given["editor"]), options, "")


def test_commands_in_sentences_are_understood() -> None:
    for page, text in pages().items():
        for token in MarkdownIt().parse(text):
            for child in token.children or ():
                if child.type == "code_inline" and child.content.startswith("indelible "):
                    words = shlex.split(child.content.removeprefix("indelible "))
                    if words[0].islower():  # COMMAND stands for any
                        assert words and page
                        typed(words, complete=False)


def test_yaml_is_a_study_or_a_part_of_one(desk: Path) -> None:
    for block in of("yaml"):
        holds = yaml.safe_load(block.text)
        if isinstance(holds, list):
            (desk / "claims-alone.yaml").write_text(block.text, encoding="utf-8")
            assert read_claims(desk / "claims-alone.yaml")
        elif "jobs" in holds:
            for line in (step["run"] for job in holds["jobs"].values() for step in job["steps"]):
                understand(line)
        else:
            whole = {"name": "whole", "model": "smollm2-135m", **holds}
            if not {"arms", "grid"} & whole.keys():
                whole["arms"] = [{"name": "memit", "editor": "memit"}]
            config = parse_config(yaml.safe_dump(whole), block.page, desk)
            assert resolve_arms(config) and (block.title == "" or holds["name"] == Path(block.title).stem)


def test_files_of_facts_and_of_training_data_are_read(desk: Path) -> None:
    (wanted,) = (yaml.safe_load(block.text)["tuning"] for block in of("yaml") if "my-train.jsonl" in block.text)
    for block in of("json") + of("csv"):
        if block.title == wanted["data"]["source"]:
            data = DataSettings(**wanted["data"])
            first = next(data_task(data, OBJECTIVES.get(wanted["objective"]))(0))
            assert first.prompt and first.answer
        else:
            read = read_facts(desk / block.title, strict=True)
            assert read.facts and all(fact.new_object for fact in read.facts)


def targets(text: str) -> Iterator[str]:
    for token in MarkdownIt().enable("table").parse(text):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield str(child.attrs.get("href") or child.attrs.get("src"))


@cache
def anchors(page: str) -> frozenset[str]:
    """What a page can be entered at, as the site names its headings."""
    tokens = MarkdownIt().parse(pages()[page])
    headings = [after.content for one, after in pairwise(tokens) if one.type == "heading_open"]
    plain = [re.sub(r"[^\w\s-]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title)).strip().lower() for title in headings]
    return frozenset(re.sub(r"[-\s]+", "-", title) for title in plain)


def test_links_lead_somewhere() -> None:
    for page, text in pages().items():
        for target in (one for one in targets(text) if not one.startswith("https://")):
            path, _, anchor = target.partition("#")
            place = normpath(join(dirname(page), path)) if path else page
            assert place in pages() or (ROOT / place).is_file(), (page, target)
            assert not anchor or anchor in anchors(place), (page, target)


def test_the_readme_is_short() -> None:
    lines = written()["README.md"].splitlines()
    assert len(lines) <= 90 and max(map(len, lines)) <= WIDTH


def test_the_site_shows_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def files(nav: Any) -> Iterator[str]:
        if isinstance(nav, str):
            yield nav
        else:
            for below in nav.values() if isinstance(nav, dict) else nav:
                yield from files(below)

    shown = [f"docs/{name}" for name in files(site["nav"])]
    assert sorted(shown) == sorted(page for page in pages() if page.startswith("docs/"))


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] == indelible.__version__
    assert citation["license"] == project["license"] and citation["authors"] and citation["cff-version"] == "1.2.0"


def test_every_name_is_told() -> None:
    said = {page: set(re.findall(r"`([\w-]+)[:`]", text)) for page, text in written().items()}
    for page, names in (
        ("docs/edit.md", EDITORS.names()),
        ("docs/study.md", [*OBJECTIVES.names(), *TASKS.names(), *MASKS.names(), *preset_names()]),
        ("docs/exam.md", KINDS.names()),
        ("docs/keep.md", PROTECTIONS.names()),
    ):
        assert set(names) <= said[page], page
    told = "".join(block.text for block in blocks() if block.page in written() and block.language == "bash")
    group: Any = PROGRAM
    for command in group.commands:
        assert f"indelible {command} " in told or f"indelible {command}`" in "".join(written().values()), command
    shown = written()["README.md"] + written()["docs/python.md"]
    assert [name for name in indelible.__all__ if f"indelible.{name}" not in shown] == []


def test_the_reference_has_every_key_option_and_command() -> None:
    options, keys, commands = (
        pages()[f"docs/reference/{name}.md"] for name in ("editor-options", "study-keys", "commands")
    )
    assert "`bystander_weight` · number ≥ 0 · default `10` · published `0`\n:   Preservation of bystanders'" in options
    assert "`contexts` · whole number ≥ 0 or `rome` or `memit` · default `2` · published `rome`" in options
    assert "`n_edits` · whole number ≥ 1 or `null` · default `null`\n:   facts to edit" in keys
    for model in (StudyConfig, TuningSettings):
        for name, nested in model.model_json_schema()["$defs"].items():
            assert all(f"`{key}` · " in keys for key in nested["properties"]), name
    assert "\n### tuning.data\n" in keys
    assert "`schema` · text or `null` · default `null`\n:   " in keys
    for editor in EDITORS.values():
        for option in editor.model_fields:
            assert f"`{option}` · " in options
    group: Any = PROGRAM
    for name, command in group.commands.items():
        text = commands.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"\nindelible {name}" in text.split("**Examples**")[1]
        for option in (one.opts[-1] for one in command.params if one.param_type_name == "option"):
            assert f"* `{option}" in text or f", {option}" in text, (name, option)
