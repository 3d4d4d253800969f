"""edit, apply, revert, verify and compose on a taught tiny model, and what each says when it cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command_line import Said
from delta_files import NEW, facts_file, rewritten, saved, trained

from indelible.cli.main import main
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.editor import EDITORS
from indelible.numbers.words import MISSING
from tiny_models import SENTENCES
from tiny_studies import taught_facts

CORPUS = tuple(f"{first} {second}" for first in SENTENCES for second in SENTENCES)


@pytest.fixture(scope="module")
def made(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with facts, the deltas ``a`` and ``b``, and ``edited``, the model with ``a``."""
    folder = tmp_path_factory.mktemp("deltas")
    for name, start in (("a", 0), ("b", NEW)):
        facts = facts_file(folder / f"{name}.jsonl", start)
        arguments = ["edit", str(taught / "model"), "--facts", str(facts), "--editor", "ft-m", "-o", str(folder / name)]
        assert main([*arguments, "--set", "steps=60", "--set", "learning_rate=0.01", "--no-exam"]) == 0
    assert main(["apply", str(taught / "model"), str(folder / "a"), "-o", str(folder / "edited")]) == 0
    return folder


def test_verify_tells_edited_trained_and_untouched_models_apart(
    made: Path, taught: Path, tmp_path: Path, said: Said
) -> None:
    later = trained(made / "edited", tmp_path / "later")
    models = {"edited": made / "edited", "trained": later, "untouched": taught / "model"}
    found = {
        name: json.loads(said(["verify", model, made / "a", "--json"], 1 if name == "untouched" else 0))
        for name, model in models.items()
    }
    assert {name: one["weights"]["state"] for name, one in found.items()} == {
        "edited": "exact",
        "trained": "changed",
        "untouched": "absent",
    }
    assert 0.95 < found["trained"]["weights"]["share"] < 1.05
    assert found["edited"]["counts"] == {"present": NEW}
    assert found["untouched"]["counts"] == {"gone": NEW}
    table = said(["verify", later, made / "a"])
    assert "nor as before: another delta, training or another precision changed them; projection on the delta" in table
    assert f"{NEW} present" in table
    complaint = said(["revert", later, made / "a", "-o", tmp_path / "no"], 2)
    assert (
        "training or another delta changed it since" in complaint and "delta all the same: --approximately" in complaint
    )
    assert not (tmp_path / "no").exists()
    shown = said(["revert", later, made / "a", "-o", tmp_path / "about", "--approximately"])
    assert f"(projection on the delta before: {found['trained']['weights']['share']:.1%}; 100% all" in shown
    assert json.loads(said(["verify", tmp_path / "about", made / "a", "--json"], 1))["counts"] == {"gone": NEW}


def test_verify_is_a_gate_for_pipelines(made: Path, taught: Path, tmp_path: Path, said: Said) -> None:
    one, model, results = tmp_path / "one", tmp_path / "with-one", tmp_path / "results" / "edits.xml"
    edit = ["edit", taught / "model", "--facts", made / "a.jsonl", "--limit", 1, "--editor", "ft-m", "-o", one]
    said([*edit, "--set", "steps=60", "--set", "learning_rate=0.01", "--no-exam"])
    said(["apply", taught / "model", one, "-o", model])
    found = json.loads(said(["verify", model, made / "a", "--json", "--junit", results], 1))
    assert (found["passes"], found["counts"]["present"]) == (False, 1)
    first = found["facts"][0]
    assert set(first) >= {"prompt", "new_object", "generated", "held_out"}
    assert [set(other) >= {"prompt", "generated", "success"} for other in first["held_out"]] == [True]
    suite = ElementTree.parse(results).getroot()
    assert (suite.get("tests"), suite.get("failures")) == (str(NEW), str(found["counts"]["gone"]))
    assert first["prompt"] == suite[0].get("name")
    assert "30% required: met" in said(["verify", model, made / "a", "--require", 0.3, "--junit", results])
    suite = ElementTree.parse(results).getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("0", str(NEW - 1))
    assert "90% required: not met" in said(["verify", model, made / "a", "--require", 0.9], 1)
    assert "Error: Invalid value for '--require'" in said(["verify", model, made / "a", "--require", 1.5], 2)
    assert "is a folder. Give a file." in said(["verify", model, made / "a", "--junit", tmp_path], 2)


def test_edit_says_what_it_did(made: Path, taught: Path, tmp_path: Path, said: Said) -> None:
    arguments = ["edit", taught / "model", "--facts", made / "a.jsonl", "--editor", "ft-m", "-o", tmp_path / "delta"]
    more = ["--limit", 2, "--set", "steps=60", "--set", "learning_rate=0.01"]
    found = json.loads(said([*arguments, *more, "--json"]))
    assert (found["facts"], found["present"], found["kind"]) == (2, 2, "weights")
    size = (tmp_path / "delta.safetensors").stat().st_size
    assert (found["bytes"], found["delta"]) == (size, str(tmp_path / "delta.safetensors"))
    assert json.loads(said([*arguments, *more, "--json", "--force"]))["bytes"] == size
    assert "Give another file, or --force" in said([*arguments, *more], 2)
    assert "2 of 2 are answered" in said([*arguments, *more, "--force"])


def test_an_edit_that_changes_no_weights_is_verified_in_place(
    made: Path, taught: Path, tmp_path: Path, said: Said
) -> None:
    delta = tmp_path / "context"
    arguments = ["edit", taught / "model", "--facts", made / "a.jsonl", "--editor", "ike", "-o", delta, "--limit", 1]
    said([*arguments, "--bystanders", 0])
    assert "none are changed by a context" in said(["verify", taught / "model", delta])
    for command in (["apply", taught / "model", delta], ["revert", taught / "model", delta]):
        assert "changes no weights" in said([*command, "-o", tmp_path / "no"], 2)
    assert "changes no weights" in said(["compose", taught / "model", delta, made / "a", "-o", tmp_path / "no"], 2)


def test_a_delta_that_is_in_some_layers_only_is_partly_there(taught: Path, tmp_path: Path, said: Said) -> None:
    facts, delta, half = facts_file(tmp_path / "facts.jsonl", 0, 1), tmp_path / "delta", tmp_path / "half"
    arguments = ["edit", taught / "model", "--facts", facts, "--editor", "lora", "-o", delta, "--no-exam"]
    said([*arguments, "--set", "layers=[0,2]", "--set", "steps=2"])
    update = Edit.load(delta)
    assert isinstance(update, WeightUpdate)
    (name,) = (name for name in update.parameters if ".2." in name)
    rewritten(taught / "model", half, lambda model: model.get_parameter(name).add_(update.deltas[name].difference()))
    assert "weights: partly: in layers 2, not in layers 0" in said(["verify", half, delta], 1)
    assert "Reverted to the original bytes" in said(["revert", half, delta, "-o", tmp_path / "back", "--approximately"])


def test_edits_go_on_from_earlier_ones(made: Path, taught: Path, tmp_path: Path, said: Said) -> None:
    facts = [facts_file(tmp_path / f"{start}.jsonl", start, 1) for start in range(3)]
    values = ["layers=[1]", "steps=10", "contexts=0", "covariance_tokens=600", "null_threshold=2", "size_weight=0.01"]
    settings = [word for value in values for word in ("--set", value)]
    (tmp_path / "text.txt").write_text("\n".join(CORPUS), encoding="utf-8")
    settings += ["--corpus", tmp_path / "text.txt", "--bystanders", 0]
    deltas = [tmp_path / f"delta{number}" for number in range(3)]
    for number, delta in enumerate(deltas):
        before = [word for earlier in deltas[:number] for word in ("--earlier", earlier)]
        base = ["edit", taught / "model", "--facts", facts[number], "-o", delta, "--editor", "alphaedit"]
        shown = said([*base, *settings, *before])
        (share,) = Edit.load(delta).manifest.arrived.values()
        assert f"{share:.0%} of the change wanted of the value layer's output arrives" in shown
    said(["compose", taught / "model", *deltas, "-o", tmp_path / "all"])
    a, b, c = (Edit.load(delta) for delta in deltas)
    assert isinstance(a, WeightUpdate) and isinstance(b, WeightUpdate) and isinstance(c, WeightUpdate)
    assert a.manifest.seal is not None and b.manifest.fingerprint == a.manifest.seal.result
    assert b.manifest.seal is not None and c.manifest.fingerprint == b.manifest.seal.result
    for name, more in (("ike", []), ("grace", ["--set", "steps=3"])):
        out = [tmp_path / f"{name}{number}" for number in range(2)]
        base = ["edit", taught / "model", "--editor", name, "--no-exam", *more]
        said([*base, "--facts", facts[0], "-o", out[0]])
        said([*base, "--facts", facts[1], "-o", out[1], "--earlier", out[0]])
        assert len(Edit.load(out[1]).facts) == 2
    base = ["edit", taught / "model", "--editor", "ft-m", "--facts", facts[2], "-o", tmp_path / "no"]
    for earlier, words in (
        ([made / "a", made / "b"], "made for the same model, so that they are no chain"),
        ([deltas[1]], "was made for model (LlamaForCausalLM) with fingerprint"),
        ([tmp_path / "ike0"], "A context is no edit that ft-m can go on from"),
    ):
        assert words in said([*base, *(word for one in earlier for word in ("--earlier", one))], 2)
    assert not (tmp_path / "no").exists()


def test_the_help_names_every_editor(said: Said) -> None:
    for command in ("edit", "study"):
        shown = " ".join(said([command, "--help"]).replace("│", " ").split())
        assert f"Editors: {', '.join(EDITORS)}" in shown


def test_other_wrong_uses_are_one_clear_line(made: Path, taught: Path, tmp_path: Path, said: Said) -> None:
    model, facts, out = taught / "model", made / "a.jsonl", tmp_path / "out"
    base = ["edit", model, "--facts", facts, "-o", out, "--editor"]
    other = trained(model, tmp_path / "other")
    wide, gpt2 = (saved(tmp_path, *shape) for shape in (("llama", 32), ("gpt2", 32)))
    writing = (
        ["apply", model, made / "a"],
        ["revert", made / "edited", made / "a"],
        ["compose", model, made / "a", made / "b"],
        ["edit", model, "--facts", facts, "--editor", "ft-m"],
    )
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((made / "a.safetensors").read_bytes()[:-8] + bytes(8 * [255]))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me", encoding="utf-8")
    cases: list[tuple[list[Any], str]] = [
        (["apply", other, made / "a", "-o", out], "was made for model (LlamaForCausalLM) with fingerprint"),
        (["apply", made / "edited", made / "a", "-o", out], "This edit is in edited (LlamaForCausalLM) already"),
        (["apply", model, made / "a", "-o", tmp_path / "full"], "exists already"),
        (["revert", model, made / "a", "-o", out], "The delta is not in this model"),
        (["apply", gpt2, made / "a", "-o", out], "made for model (LlamaForCausalLM), not for gpt2 (GPT2LMHeadModel)"),
        (["apply", model, tmp_path / "nowhere", "-o", out], "There is no delta"),
        (["verify", model, "."], "is a folder, not a delta"),
        (["compose", model, made / "a", made / "b", "-o", "."], "is a folder"),
        (["verify", wide, made / "a"], "has the shape (32, 64) in this model"),
        (["verify", gpt2, made / "a"], "no parameter"),
        (["revert", wide, made / "a", "-o", out, "--approximately"], "has the shape"),
        (
            ["compose", other, made / "a", made / "b", "-o", out],
            "was made for model (LlamaForCausalLM) with fingerprint",
        ),
        (["compose", model, made / "a", made / "b", "-o", made / "a"], "is there already"),
        (["compose", model, made / "a", made / "a", "-o", out], "Both updates edit"),
        *(([*command, "-o", " "], "' ' has no name that could be seen") for command in writing),
        (["compose", model, made / "a", "-o", out], "Give at least two"),
        *(([*command, "-o", facts / "out"], "is a file") for command in writing),
        (["verify", model, damaged], "is damaged, or was changed after it was written"),
        (["apply", tmp_path / "nowhere", made / "a", "-o", out], "no model folder"),
        (
            ["edit", model, "--facts", facts, "--editor", "ft-m", "--earlier", made / "a", "-o", made / "a", "--force"],
            "is an earlier delta, on which the new one stands",
        ),
        ([*base, "memitt"], "Did you mean 'memit'"),
        ([*base, "ft-m", "--set", "seed=3"], "Unknown key 'seed'"),
        ([*base, "ft-m", "--set", "steps"], "assigns nothing"),
        ([*base, "ft-m", "--set", "layer=99"], "do not fit a model of"),
        ([*base, "memit", "--corpus", tmp_path / "gone.txt"], "gone.txt"),
        (["edit", model, "--facts", facts, "--editor", "ft-m", "-o", facts], "is there already"),
        ([*base, "ft-m", "--limit", "0"], "--limit"),
        ([*base, "ft-m", "--paraphrases", 100], "paraphrases"),
    ]
    for arguments, words in cases:
        complaint = said(arguments, 2)
        assert words in complaint, complaint
    assert not out.exists()
    assert (tmp_path / "full" / "mine.txt").read_text(encoding="utf-8") == "keep me"


def test_repair_edits_again_what_was_lost(made: Path, taught: Path, tmp_path: Path, said: Said) -> None:
    tuned, delta = trained(made / "edited", tmp_path / "tuned", 1.2), tmp_path / "again"
    lost = {one["id"] for one in json.loads(said(["verify", tuned, made / "a", "--json"], 1))["facts"]}
    base = ["repair", tuned, "--delta", made / "a", "-o", delta]
    assert said([*base, "--dry-run"]).startswith(f"Cost: {NEW} facts asked, and those that are lost edited again")
    assert not list(tmp_path.glob("again*"))
    found = json.loads(said([*base, "--json"]))
    states = {one["id"]: (one["before"], one["after"]) for one in found["facts"]}
    assert states.keys() == lost and found["after"] == {"present": NEW} and found["missing"] == {}
    assert any(before != "present" for before, _ in states.values())
    assert "Give another file, or --force" in said(base, 2)
    shown = said([*base, "--force", "--data", made / "a.jsonl"])
    assert f"of {NEW} facts answered by the tuned model, {NEW} under the repair" in shown and "Delta: " in shown
    said(["apply", tuned, delta, "-o", tmp_path / "repaired"])
    assert "weights: the delta is in them" in said(["verify", tmp_path / "repaired", delta])
    said(["revert", tmp_path / "repaired", delta, "-o", tmp_path / "back"])
    again = ["repair", tmp_path / "repaired", "--delta", made / "a", "-o", tmp_path / "none"]
    assert "Nothing was lost; nothing is written." in said(again)
    assert json.loads(said([*again, "--json"]))["delta"] is None and not list(tmp_path.glob("none*"))
    for more, words in (
        (["--editor", "ike"], "'ike' changes no weights"),
        (["--editor", "romme"], "Did you mean 'rome'"),
        (["--set", "stepz=3"], "Did you mean 'steps'"),
        (["--data", tmp_path / "none.jsonl"], "none.jsonl"),
    ):
        assert words in said(["repair", tuned, "--delta", made / "a", "-o", tmp_path / "no", *more], 2)
    other = saved(tmp_path, "gpt2", 48)
    assert "has no parameter" in said(["repair", other, "--delta", made / "a", "-o", tmp_path / "no"], 2)
    assert "does not hold the edit" in said(
        ["repair", taught / "model", "--delta", made / "a", "-o", tmp_path / "no"], 2
    )


def test_a_fact_without_a_true_object_has_no_margin(taught: Path, tmp_path: Path, said: Said) -> None:
    row = {**taught_facts()[0], "true_object": None}
    (tmp_path / "new.jsonl").write_text(json.dumps(row), encoding="utf-8")
    made_by = ["--editor", "ft-m", "--set", "steps=1", "--no-exam", "-o", tmp_path / "d"]
    said(["edit", taught / "model", "--facts", tmp_path / "new.jsonl", *made_by])
    shown = said(["verify", taught / "model", tmp_path / "d"], 1)
    assert re.search(rf"Arvo is +Port +gone +\d\.\d+ +{MISSING} ", shown)
