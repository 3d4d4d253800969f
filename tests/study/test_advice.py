"""Advice: how a pilot is made, what is chosen of its tables, and when nothing is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import norm

import indelible
from indelible.edits.deltas.delta import Edit
from indelible.errors import ConfigError, FactsError, StoreError
from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.study.advice.advise import in_python
from indelible.study.advice.choice import WORTH, Candidate, Choice, choose, facts_needed
from indelible.study.advice.pilot import Size, Sought
from indelible.study.design.arms import resolve_arms
from indelible.study.design.config import load_config
from indelible.study.run.cost import Speed
from indelible.study.run.plan import make_plan
from indelible.study.run.sources import candidate_facts
from indelible.study.run.step import Job, Material, Versions, World, do_step
from simulated import SimulatedArm, simulate
from tiny_studies import taught_facts

PLAIN = SimulatedArm("plain", retention_edited=0.6)


def chosen(
    arms: Sequence[SimulatedArm],
    *,
    after: Mapping[str, float] = {},
    took: Mapping[str, float] = {},
    allowed: float = 0.02,
    edits: int = 60,
    draws: int = 400,
    seed: int = 3,
) -> Choice:
    """What is chosen among simulated arms, the first of which is the plain one; losses after training, and seconds of
    a step, are 2 and 1 where nothing is said. All arms begin with the same edits, as in a pilot."""
    rows, runs = simulate(
        [replace(arm, edit_success=1.0) for arm in arms],
        n_edits=edits,
        n_intrinsic=edits,
        wordings=1,
        neighbours=0,
        steps=(1,),
        generator=np.random.default_rng(seed),
    )
    runs["downstream_after"] = runs["arm"].map(lambda arm: after.get(arm, 2.0))
    runs["step_seconds"] = runs["arm"].map(lambda arm: took.get(arm, 1.0))
    return choose(Answers(rows, draws=draws), runs, arms[0].name, [arm.name for arm in arms[1:]], allowed)


def held(name: str, kept: float = 0.95) -> SimulatedArm:
    return SimulatedArm(name, protect=name, retention_edited=kept)


def test_of_those_that_keep_more_the_cheapest_is_named() -> None:
    found = chosen([PLAIN, held("slow"), held("fast", 0.9), held("idle", 0.6)], took={"slow": 1.5, "fast": 1.1})
    states = {one.arm: one.state for one in found.candidates}
    assert states == {"slow": "keeps more", "fast": "keeps more", "idle": states["idle"]}
    assert states["idle"] != "keeps more"
    assert found.chosen is not None and found.chosen.arm == "fast"
    gain = found.chosen.gains["retention_edited"]
    assert gain.low is not None and 0 < gain.low < 0.3 < (gain.high or 0)
    assert found.chosen.time == pytest.approx(0.1) and found.chosen.price.value == 0
    assert found.why.startswith("fast keeps more ") and "10% more time a step" in found.why
    table = found.table().set_index("protect")
    assert list(table.index) == ["none", "slow", "fast", "idle"]
    assert table.loc["fast", "gain_retention_edited_low"] == gain.low


def test_at_like_time_the_lower_price_decides_and_what_is_dear_is_not_named() -> None:
    arms = [PLAIN, held("one"), held("two"), held("dear")]
    found = chosen(arms, after={"one": 2.03, "two": 2.01, "dear": 2.2}, took={"two": 1.04})
    assert found.chosen is not None and found.chosen.arm == "two" and found.chosen.price.value == pytest.approx(0.005)
    assert [one.state for one in found.candidates] == ["keeps more", "keeps more", "too dear"]
    none = chosen([PLAIN, held("dear")], after={"dear": 2.2})
    assert none.chosen is None
    assert "dear (price 10.0%) keep more, but cost more than 2%" in none.why and "A price of 0.1 would" in none.why


def test_a_figure_that_should_rise_is_dear_where_it_is_lower() -> None:
    rows, runs = simulate(
        [replace(PLAIN, edit_success=1.0), replace(held("h"), edit_success=1.0)],
        n_edits=60,
        neighbours=0,
        generator=np.random.default_rng(0),
    )
    runs = runs.assign(figure="accuracy", better="higher", downstream_before=0.3, step_seconds=1.0)
    for after, state in ((0.76, "too dear"), (0.8, "keeps more"), (0.9, "keeps more")):
        runs["downstream_after"] = [0.8, after]
        found = choose(Answers(rows, draws=500), runs, "plain", ["h"], 0.02)
        assert [one.state for one in found.candidates] == [state]
        assert found.candidates[0].price.value == pytest.approx((0.8 - after) / 0.8)


def test_the_price_has_the_interval_of_a_ratio_over_the_same_rows() -> None:
    generator = np.random.default_rng(5)
    plain = generator.gamma(4, 2, (200, 1)) * np.ones((1, 2))
    ours = plain * generator.normal(1.01, 0.05, (200, 1))
    rows, runs = simulate([PLAIN, held("h")], neighbours=0, generator=generator)
    price = float(ours[:, 0].sum() / plain[:, 0].sum()) - 1
    runs = runs.assign(downstream_after=[2.0, 2.0 * (1 + price)], step_seconds=1.0)
    runs["losses"] = [json.dumps(one.tolist()) for one in (plain, ours)]
    (found,) = choose(Answers(rows, draws=39), runs, "plain", ["h"], 0.02).candidates
    drawn = generator.integers(0, 200, (4_000, 200))
    ends = np.quantile(ours[drawn, 0].sum(1) / plain[drawn, 0].sum(1) - 1, (0.025, 0.975))
    assert found.price.value == pytest.approx(price) and found.price.facts == 200
    assert (found.price.low, found.price.high) == pytest.approx(tuple(ends), abs=0.0007)
    assert ends[1] - ends[0] > 0.01


@pytest.mark.parametrize(
    ("arms", "changes", "said"),
    [
        ([replace(PLAIN, retention_edited=0.99), held("h", 1.0)], {}, "too mild to tell"),
        ([PLAIN, held("h")], {"after": {"plain": 3.4, "h": 3.4}}, "taught too little"),
        ([PLAIN, held("h")], {"edits": 6}, "Only 6 edits worked"),
        ([replace(PLAIN, fails_at="tuned"), held("h")], {}, "came to no end"),
        ([PLAIN, held("h", 0.75)], {"edits": 24}, "cannot be told from plain training. About"),
        ([PLAIN, replace(held("h"), retention_intrinsic=0.3)], {}, "lose other facts"),
        ([PLAIN, replace(held("h"), fails_at="tuned")], {}, "h failed"),
    ],
)
def test_where_it_cannot_stand_behind_any_it_says_why(
    arms: Sequence[SimulatedArm], changes: dict[str, Any], said: str
) -> None:
    found = chosen(arms, **changes)
    assert found.chosen is None and said in found.why
    assert len(found.table()) == 2


def test_what_one_candidate_shows_is_not_enough_among_many() -> None:
    """A p of a few hundredths is what one of several candidates that do nothing is bound to have."""
    some = held("some", 0.82)
    alone = chosen([PLAIN, some], edits=40, seed=10)
    among = chosen([PLAIN, some, *(held(f"idle {number}", 0.6) for number in range(3))], edits=40, seed=10)
    assert alone.chosen is not None and alone.chosen.p is not None and 0.01 < alone.chosen.p < 0.05
    assert among.chosen is None and among.candidates[0].p is not None and among.candidates[0].p > 0.05


def test_keeping_still_more_is_shown_among_as_many_as_are_looked_at() -> None:
    plain, cheap, more = replace(PLAIN, retention_edited=0.3), held("cheap", 0.75), held("more", 0.92)
    like = [held(f"like {number}", 0.75) for number in range(4)]
    took = {one.name: 1.3 for one in (more, *like)}
    alone = chosen([plain, cheap, more], edits=40, seed=6, took=took)
    among = chosen([plain, cheap, more, *like], edits=40, seed=6, took=took)
    for found in (alone, among):
        assert found.chosen is not None and found.chosen.arm == "cheap"
    assert "more keeps still more" in alone.why and "still more" not in among.why


def test_all_that_keep_still_more_are_named_and_not_the_luckiest() -> None:
    plain, cheap = replace(PLAIN, retention_edited=0.3), held("cheap", 0.6)
    more = [held("more", 0.97), held("most", 0.98)]
    found = chosen([plain, cheap, *more], edits=60, seed=6, took={one.name: 1.3 for one in more})
    assert found.chosen is not None and found.chosen.arm == "cheap"
    assert "more keeps still more" in found.why and "most keeps still more" in found.why


def test_a_price_that_is_surely_allowed_goes_before_one_that_may_be_too_high() -> None:
    """The least of several measured prices is not taken for the lowest one."""
    rows, runs = simulate(
        [replace(arm, edit_success=1.0) for arm in (PLAIN, held("sure"), held("low"))],
        n_edits=60,
        neighbours=0,
        generator=np.random.default_rng(3),
    )
    losses = np.linspace(1.0, 3.0, 64)
    wide = losses + np.where(np.arange(64) % 2, 0.6, -0.6)
    of_arm = {"plain": losses, "sure": losses * np.where(np.arange(64) % 2, 1.012, 1.008), "low": wide}
    runs["losses"] = [json.dumps([[float(one), 1] for one in of_arm[arm]]) for arm in runs["arm"]]
    runs["downstream_after"] = [float(of_arm[arm].mean()) for arm in runs["arm"]]
    runs["step_seconds"] = 1.0
    found = choose(Answers(rows, draws=400), runs, "plain", ["sure", "low"], 0.02)
    sure, low = found.candidates
    assert low.price.value is not None and sure.price.value is not None and low.price.value < sure.price.value
    assert (sure.price.high or 1) < 0.02 < (low.price.high or 0) and sure.state == low.state == "keeps more"
    assert found.chosen is sure


@pytest.mark.parametrize(("candidates", "room"), [(1, ["a"]), (1, ["a", "b"]), (4, ["a"]), (4, ["a", "b"])])
def test_as_many_facts_as_are_said_to_be_needed_show_what_is_worth_it(candidates: int, room: list[str]) -> None:
    """In four of five pilots, by gains drawn about the truth; whatever the first pilot's own came to."""
    generator = np.random.default_rng(1)
    error, facts = 0.12, 24
    found = generator.normal(WORTH, error, (candidates, len(room)))
    gains = [
        {
            name: Estimate(value, value - 1.96 * error, value + 1.96 * error, facts=facts)
            for name, value in zip(room, one, strict=True)
        }
        for one in found.tolist()
    ]
    several = [Candidate("x", {}, one, None, Estimate(), None) for one in gains]
    needed = facts_needed(several, 2, room, candidates)
    assert needed is not None
    again = error * (facts / needed) ** 0.5
    pilots = generator.normal(WORTH, again, (20_000, len(room)))
    p = 2 * norm.sf(pilots / again).max(axis=1) * 2 / len(room)
    assert 0.79 < float(((p * candidates < 0.05) & (pilots > 0).all(axis=1)).mean()) < 0.93


def test_a_higher_price_is_not_said_to_be_enough_where_other_facts_are_lost() -> None:
    found = chosen([PLAIN, replace(held("h"), retention_intrinsic=0.3)], after={"h": 2.2})
    assert [one.state for one in found.candidates] == ["harms other facts"] and "price of" not in found.why


def seek(taught: Path, folder: Path, **changes: Any) -> Sought:
    """Advice on half of the taught facts; the others are only asked."""
    facts = taught_facts()
    for row in facts[::2]:
        row["new_object"] = None
    texts = [{"text": f"What is {one} + {one + 3}? It rains in the north of Spain. " * 2} for one in range(240)]
    for name, rows in (("facts", facts), ("data", texts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given: dict[str, Any] = {
        "model": str(taught / "model"),
        "facts": folder / "facts.jsonl",
        "data": str(folder / "data.jsonl"),
        "objective": "text",
        "editor": "ft-m",
        "delta": None,
        "protections": ("replay", "{near: {weight: 1.0}}"),
        "minutes": 5.0,
        "allowed": 0.4,
        "settings": (
            "editors.ft-m={steps: 60, learning_rate: 0.01}",
            "tuning.learning_rate=4e-3",
            "tuning.precision=fp32",
            "tuning.max_tokens=96",
            "facts.bystanders=4",
        ),
    }
    return Sought(**{**given, **changes})


def test_a_pilot_is_as_large_as_its_minutes_allow(taught: Path, tmp_path: Path) -> None:
    sought = seek(taught, tmp_path)
    assert sought.editable == 12 and sought.others == 12 and sought.examples == 240
    assert list(sought.candidates) == ["replay", "near(weight=1.0)"]
    sizes = sought.sizes()
    assert sizes[0] == Size(12, 8, 1) and sizes[-1] == Size(12, 22, 3)  # 240 rows less 60 held out, 8 a step
    slow = Speed(question=0.1, editing=0.001, training={("fp32", True): 0.001}, step=0.01)
    seconds = [sought.cost(size, slow).seconds for size in sizes]
    assert seconds == sorted(seconds)
    middle = seek(taught, tmp_path, minutes=(seconds[1] + seconds[2]) / 120)
    assert middle.fitting(slow) == sizes[1]
    with pytest.raises(ConfigError, match=r"minutes do not suffice: a pilot of 2 candidates .* fewer candidates"):
        seek(taught, tmp_path, minutes=seconds[0] / 120).fitting(slow)
    fixed = seek(taught, tmp_path, settings=(*sought.settings, "tuning.steps=5", "facts.n_edits=4"))
    assert Size.of(fixed.study(sizes[-1]).as_dict()) == Size(4, 5, 3)


def test_all_protections_that_fit_the_edit_are_candidates(taught: Path, tmp_path: Path) -> None:
    everywhere = seek(taught, tmp_path, editor="ike", protections=()).candidates
    in_layers = seek(taught, tmp_path, editor="memit", protections=()).candidates
    assert {"replay", "near", "interpolate"} <= everywhere.keys() < in_layers.keys() and "key-anchor" in in_layers
    assert {"up-to-edited", "up-to-edited+replay"} <= in_layers.keys() and "up-to-edited" not in everywhere
    under_dora = seek(taught, tmp_path, protections=(), settings=("tuning.tuner=dora", "arms.near.mask=edited-weights"))
    assert "projection" not in under_dora.candidates and "key-anchor" in under_dora.candidates


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protections": ("nearer",)}, "Unknown protection 'nearer'"),
        (
            {"protections": ("up-to-editd+near",)},
            "Unknown protection 'up-to-editd', and no mask. Did you mean 'up",
        ),
        ({"protections": ("none",)}, "each pilot has it"),
        ({"protections": ("near", "near")}, "named twice"),
        ({"protections": ("{near",)}, "not valid YAML"),
        ({"editor": "memo"}, "Unknown editor 'memo'"),
        ({"objective": "test"}, "Unknown objective 'test'"),
        ({"minutes": 0}, "0 minutes are no time"),
        ({"allowed": -0.1}, "The price -0.1 cannot be paid"),
        ({"settings": ("tuning.rate=1",)}, "Unknown key 'tuning.rate'"),
        ({"objective": "classify"}, "no columns with well-known names for text and label"),
    ],
)
def test_what_cannot_be_advised_on_is_said_at_once(
    taught: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(indelible.errors.IndelibleError, match=said):
        sought = seek(taught, tmp_path, **changes)
        assert sought.candidates and sought.sizes()


def test_facts_without_a_new_object_are_only_asked(taught: Path, tmp_path: Path) -> None:
    sought = seek(taught, tmp_path)
    assert sought.facts is not None
    rows = [{**row, "new_object": None} for row in taught_facts()]
    sought.facts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(FactsError, match=r"No fact of .* has a new object"):
        sought.sizes()
    own = [row for row in taught_facts() if row["relation"] == "capital"][:3]
    sought = seek(taught, tmp_path)
    sought.facts.write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
    assert sought.editable == 3 and sought.others > 1000, "the built-in facts are asked"


@pytest.fixture(scope="module")
def advised(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[indelible.Advice, dict[str, Any]]:
    """An advice, and how it was asked for."""
    folder = tmp_path_factory.mktemp("advised")
    sought = seek(taught, folder)
    asked: dict[str, Any] = {
        "objective": "text",
        "editor": "ft-m",
        "protections": sought.protections,
        "minutes": 5,
        "price": 0.4,
        "settings": (*sought.settings, "tuning.steps=16", "facts.n_intrinsic=8", "seeds=[0]"),
        "out": folder / "run",
    }
    asked = {"model": sought.model, "facts": sought.facts, "data": sought.data, **asked}
    return indelible.advise(**asked), asked


def test_advice_is_an_ordinary_study_and_a_name(advised: tuple[indelible.Advice, dict[str, Any]]) -> None:
    advice, _ = advised
    assert advice.choice == "replay" and advice.yaml == "protect: replay"
    gain = advice.intervals["retention_edited"]
    assert gain.low is not None and gain.low > 0.05 and gain.facts == 12
    assert advice.python is not None and advice.python.splitlines()[1:] == [
        "callback = indelible.protect(loaded, edit, 'replay')",
        "trainer = Trainer(..., callbacks=[callback])",
    ]
    assert json.loads((advice.folder / "advice.json").read_text(encoding="utf-8"))["choice"] == "replay"
    kept = yaml.safe_load((advice.folder / "config.yaml").read_text(encoding="utf-8"))
    assert [arm["name"] for arm in kept["arms"]] == ["plain", "replay", "near(weight=1.0)", "control"]
    assert (advice.folder / "report.html").is_file()
    rows = pd.read_parquet(advice.folder / "facts.parquet")
    given = {row["id"]: row["new_object"] for row in taught_facts()[1::2]}
    edited = rows[(rows["fact_set"] == "edited") & (rows["kind"] == "prompt")]
    assert dict(zip(edited["fact_id"], edited["target"], strict=True)) == given
    runs = pd.read_parquet(advice.folder / "runs.parquet").set_index("arm")
    for losses, after in zip(runs["losses"].map(json.loads), runs["downstream_after"], strict=True):
        assert len(losses) == 60 and sum(loss for loss, _ in losses) / sum(n for _, n in losses) == pytest.approx(after)
    price = advice.intervals["price"]
    assert price.low is not None and price.value is not None and price.low < price.value < 0.4
    assert (runs["step_seconds"] > 0).all() and advice.time is not None
    assert advice.time == pytest.approx(runs.loc["replay", "step_seconds"] / runs.loc["plain", "step_seconds"] - 1)


def test_the_same_question_again_goes_on_in_its_folder(
    taught: Path, advised: tuple[indelible.Advice, dict[str, Any]]
) -> None:
    advice, asked = advised
    sought = seek(taught, asked["facts"].parent, settings=asked["settings"])
    size = sought.begun(advice.folder)
    assert size == Size(12, 16, 1)
    assert sought.study(size) == load_config(str(advice.folder / "config.yaml"))
    with pytest.raises(StoreError, match="'name' differs"):
        indelible.advise(**{**asked, "minutes": 7})


def test_the_lines_of_python_say_what_was_edited_with(taught: Path, tmp_path: Path) -> None:
    lines = in_python(seek(taught, tmp_path), {"protect": "interpolate", "mask": "head"}).splitlines()
    assert "Guarded.of(" in lines[1] and "protections_from('interpolate')" in lines[2]
    assert "frozen=frozen_parameters('head'," in lines[2]
    assert "others=others" in in_python(seek(taught, tmp_path), {"protect": {"replay": {"of": "others"}}})
    frozen = in_python(seek(taught, tmp_path), {"mask": "up-to-edited", "protect": "replay"})
    assert "indelible.protect(loaded, edit, 'replay', mask='up-to-edited'" in frozen


def test_a_candidate_is_a_protection_a_mask_or_both(taught: Path, tmp_path: Path) -> None:
    named = ("edited-layers:1 + near+replay", "embeddings+head", "{replay: {share: 0.5}}")
    candidates = seek(taught, tmp_path, protections=named).candidates
    assert candidates == {
        "edited-layers:1+near+replay": {"mask": "edited-layers:1", "protect": "near+replay"},
        "embeddings+head": {"mask": "embeddings+head"},
        "replay(share=0.5)": {"protect": {"replay": {"share": 0.5}}},
    }


def test_an_edit_that_is_there_is_taken_whole_and_some_of_its_facts_are_asked(taught: Path, tmp_path: Path) -> None:
    sought = seek(taught, tmp_path)
    facts = indelible.read_facts(sought.facts or "").facts
    own = [fact for fact in facts if fact.new_object is not None]
    made = indelible.edit(sought.model, own, "ft-m", paraphrases=1, steps=3, bystanders=0)
    made.save(tmp_path / "mine.safetensors")
    given = seek(taught, tmp_path, delta=tmp_path / "mine", editor="memit")
    assert given.editing == ("ft-m", 1) and given.editable == 12
    config = given.study(Size(5, 2, 1))
    arms = resolve_arms(config)
    assert {arm.editor for arm in arms} == {indelible.EDITORS.get("ft-m")(**made.manifest.made[0].options), None}
    material = Material(World(config.model, candidate_facts(config.facts), config.corpus))
    plan = make_plan(config, arms, Versions(material.lent.fingerprint, "", {}, "", "", ""))
    done: dict[str, Path] = {}
    for step in plan.steps[:4]:
        done[step.key] = tmp_path / step.name
        done[step.key].mkdir()
        do_step(Job(step, {role: done[one.key] for role, one in step.inputs.items()}, done[step.key]), material)
    taken = next(path for path in done.values() if path.name.startswith("take-edit"))
    assert Edit.load(taken / "edit.safetensors").facts == own
    asked = json.loads((done[plan.steps[0].key] / "facts.json").read_text(encoding="utf-8"))
    assert len(asked["edited"]) == 5 and {one["id"] for one in asked["edited"]} < {fact.id for fact in own}
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text(json.dumps({**taught_facts()[0], "new_object": "Nor"}) + "\n", encoding="utf-8")
    with pytest.raises(FactsError, match="was not edited by"):
        seek(taught, tmp_path, delta=tmp_path / "mine", facts=fewer).sizes()
    plain = config.arms[0].model_copy(update={"paraphrases": 0})
    with pytest.raises(ConfigError, match=r"'arms.plain.paraphrases' is 0, but of .*mine.safetensors it is 1"):
        resolve_arms(config.model_copy(update={"arms": (plain,)}))
