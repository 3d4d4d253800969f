"""The package's own names: found when they are used, and doing what the pages say of them."""

from __future__ import annotations

import itertools
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import grimp
import pytest

import indelible
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import EditError, FactsError, IndelibleError
from indelible.models.fingerprint import fingerprint
from tiny_studies import taught_facts

ROOT = Path(__file__).parents[1]
OPTIONS = {"steps": 60, "learning_rate": 0.01}


def some_facts(start: int = 0, count: int = 3) -> list[indelible.Fact]:
    return [
        indelible.Fact(**{**row, "paraphrases": (), "held_out": ()}) for row in taught_facts()[start : start + count]
    ]


def test_every_name_is_there_and_no_other() -> None:
    for name in indelible.__all__:
        assert getattr(indelible, name) is getattr(indelible, name)
        assert name in dir(indelible)
    with pytest.raises(AttributeError, match="'indelible' has no attribute 'edits_'"):
        indelible.edits_  # noqa: B018


def test_facts_are_edited_asked_and_verified(taught: Path, tmp_path: Path, own_cache: None) -> None:
    loaded, facts = indelible.load(str(taught / "model")), some_facts()
    before = fingerprint(loaded.model)
    editor = indelible.EDITORS.get("ft-m")(steps=60)
    file = str(tmp_path / "mine.safetensors")
    edit = indelible.edit(loaded, facts, editor, exam=True, out=file, learning_rate=0.01)
    assert edit.manifest.made[0].options.items() >= OPTIONS.items()
    assert fingerprint(loaded.model) == before and isinstance(edit, WeightUpdate)
    assert edit.answered == dict.fromkeys((fact.id for fact in facts), "present")
    assert Edit.load(str(tmp_path / "mine")).answered == edit.answered
    asked = indelible.ask(loaded, facts)
    assert not asked.query("kind == 'prompt'")["success"].any()
    known = [replace(one, new_object=None) for one in facts]
    assert indelible.ask(loaded, known)["success"].all()
    assert indelible.verify(loaded, edit).counts == {"gone": 3}
    with edit.applied(loaded.model):
        assert indelible.ask(loaded, facts).query("kind == 'prompt'")["success"].all()
        found = indelible.verify(loaded, edit)
    assert found.counts == {"present": 3} and found.weights is not None and found.weights.state == "exact"
    assert found.to_frame()["state"].tolist() == ["present"] * 3


def test_an_edit_goes_on_from_others_and_keeps_what_was_found_of_them(taught: Path, own_cache: None) -> None:
    loaded = indelible.load(str(taught / "model"))
    first = indelible.edit(loaded, some_facts(), "ft-m", exam=True, **OPTIONS)
    second = indelible.edit(str(taught / "model"), some_facts(3), "ft-m", earlier=[first], **OPTIONS)
    assert isinstance(first, WeightUpdate) and isinstance(second, WeightUpdate)
    assert first.manifest.seal is not None and second.manifest.fingerprint == first.manifest.seal.result
    assert second.answered == {}
    with pytest.raises(EditError, match="they are no chain"):
        indelible.edit(loaded, some_facts(6), "ft-m", earlier=[first, first])
    with pytest.raises(FactsError, match="has no new object"):
        indelible.edit(loaded, [indelible.Fact("x", "A", "r", "{} is", "b")], "ft-m")


def test_the_whole_idea_in_one_file(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row if row["relation"] == "capital" else {**row, "new_object": None} for row in taught_facts()]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = ROOT / "examples" / "whole_idea.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) < 120
    monkeypatch.setattr("sys.argv", [str(script), str(taught / "model"), str(tmp_path / "facts.jsonl")])
    found = runpy.run_path(str(script), run_name="__main__")
    answers = found["answers"]
    assert answers.groupby(["phase", "fact_set"]).size().tolist() == [12] * 6
    right = {
        phase: set(answers.query(f"phase == '{phase}' and fact_set == 'intrinsic' and success")["fact_id"])
        for phase in ("base", "edited", "tuned")
    }
    assert len(right["base"]) == 12
    assert re.match(r"TuningResult\(loss .* 16 steps, \d+ s\)$", repr(found["result"]))
    assert len(found["result"].to_frame()) == 16
    kept = len(right["tuned"] & right["edited"]) / len(right["edited"])
    assert f"intrinsic: {kept:.0%} of {len(right['edited'])} are kept [" in capsys.readouterr().out


def test_mistakes_in_python_name_what_is_near(taught: Path, own_cache: None) -> None:
    loaded = indelible.load(str(taught / "model"))
    for call, said in (
        (lambda: indelible.edit(loaded, some_facts(), "memitt"), "Unknown editor 'memitt'. Did you mean 'memit'"),
        (
            lambda: indelible.edit(loaded, some_facts(), "ft-m", paraphrase=1),
            "'paraphrase'.* Did you mean 'paraphrases'",
        ),
        (lambda: indelible.edit(loaded, some_facts(), "ft-m", stepz=1), "'stepz'.* Did you mean 'steps'"),
        (lambda: indelible.edit(loaded, some_facts(), "ft-m", steps="many"), "'steps' should be a valid integer"),
        (lambda: indelible.edit(loaded, "facts.jsonl", "ft-m"), "'f' is no fact. Give facts"),  # type: ignore[arg-type]
        (lambda: indelible.ask(loaded.model, some_facts()), "LlamaForCausalLM is no loaded model"),  # type: ignore[arg-type]
        (lambda: indelible.verify(loaded, "deltas/mine"), "A str is no edit. Give what edit"),  # type: ignore[arg-type]
        (lambda: indelible.export(None, "adapter"), "A NoneType is no edit. Give what edit"),  # type: ignore[arg-type]
        (lambda: indelible.protect(loaded, some_facts(), "replay"), "is no edit"),  # type: ignore[arg-type]
        (lambda: indelible.repair(loaded, None), "is no edit"),  # type: ignore[arg-type]
        (lambda: indelible.load(None), "None is no name of a model"),  # type: ignore[arg-type]
        (lambda: indelible.run_study({"name": "a"}), "A dict is no study"),  # type: ignore[arg-type]
        (lambda: indelible.run_study(Path("quickk")), "no built-in study 'quickk'"),
        (lambda: indelible.run_study("quick", workers=0), "workers is 0"),
        (lambda: indelible.fine_tune(loaded, learning_rat=1), "learning_rat'. Did you mean 'learning_rate'"),
        (lambda: indelible.fine_tune(loaded, objective="tex"), "Did you mean 'text'"),
    ):
        with pytest.raises(IndelibleError, match=said):
            call()
    with pytest.raises(AttributeError, match="Did you mean 'verify'"):
        indelible.verfy  # noqa: B018


def test_what_comes_back_is_short_to_read_and_opens_in_pandas(taught: Path, own_cache: None) -> None:
    loaded, facts = indelible.load(str(taught / "model")), indelible.read_facts(taught / "facts.jsonl")
    assert len(facts) == 24 and facts[0] == facts.facts[0] and facts.to_frame()["id"].is_unique
    edit = indelible.edit(loaded, facts[:3], "ft-m", **OPTIONS)
    found = indelible.verify(loaded, edit)
    assert repr(facts[0]) == "Fact('capital:Arvo': 'The capital of Arvo is' 'Peru' -> 'Port')"
    assert repr(edit) == "WeightUpdate(ft-m: facts 3, parameters 1)"
    for one in (loaded, facts, found, found.facts[0]):
        assert repr(one).startswith(f"{type(one).__name__}(") and len(repr(one)) < 200, repr(one)
    assert len(found.to_frame()) == 3


def test_the_drawing_of_the_house_is_true() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawing = contributing.split("circle:\n\n```\n")[1].split("```")[0]
    drawn: dict[str, set[str]] = {}
    above: dict[int, list[str]] = {}
    for line in drawing.splitlines():
        text = line.lstrip("│├└─ ")
        chain = [part.split(", ") for part in re.split(r"\s{2,}", text)[0].split(" ──▶ ")]
        depth = len(line) - len(text)
        above[depth] = chain[0]
        parents = above.get(depth - 4, [])
        for upper, lower in [(parents, chain[0]), *itertools.pairwise(chain)]:
            for one in upper:
                drawn.setdefault(one, set()).update(lower)
    graph = grimp.build_graph("indelible", exclude_type_checking_imports=True)
    rooms = {one for pair in drawn.items() for one in (pair[0], *pair[1])}
    found = {room: {other for other in rooms if imports(graph, room, other)} for room in rooms}
    assert {(upper, one) for upper, lower in drawn.items() for one in lower} <= {
        (upper, one) for upper, lower in found.items() for one in lower
    }
    for room in rooms - {"cli"}:
        below = set(drawn.get(room, ()))
        while below != (more := below.union(*(drawn.get(one, ()) for one in below))):
            below = more
        assert found[room] <= below, room


def imports(graph: grimp.ImportGraph, room: str, other: str) -> bool:
    """Whether a module of one room imports one of another itself."""
    chains = (f"indelible.{room}", f"indelible.{other}")
    return room != other and graph.direct_import_exists(importer=chains[0], imported=chains[1], as_packages=True)
