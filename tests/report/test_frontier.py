"""The frontier of protections: families of arms, what each costs, who is beaten, and a picture that can be read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from test_figures import drawn_words

from indelible.numbers.answers import Answers
from indelible.numbers.words import MINUS, MISSING
from indelible.report.drawing.frontier import on_front
from indelible.report.exhibit import EXHIBITS, Grid, Picture, walk
from indelible.report.exhibits.frontier import frontier_of, told
from indelible.report.report import write_files
from indelible.report.run import Run
from simulated import SimulatedArm, simulate

SHARES = {  # what each keeps, the time of its step, by how much its loss is above that of the arm without it
    "none": (0.4, 1.0, 0.0),
    "replay(share=0.1)": (0.5, 1.1, 0.01),
    "replay(share=0.4)": (0.7, 1.4, 0.03),
    "anchor": (0.75, 1.05, 0.005),
    "anchor(weight=10.0)": (0.9, 1.06, 0.02),
    "key-anchor+replay(of=others, share=0.3)": (0.6, 1.5, 0.02),
    "near(weight=100.0)": (0.9, 1.0, 0.1),
}


@pytest.fixture(scope="module")
def run() -> Run:
    """A family of text by memit, one of reason without an arm that is not protected, and arms of no family."""
    arms = [SimulatedArm(f"held by {name}", protect=name, retention_edited=kept) for name, (kept, *_) in SHARES.items()]
    arms += [SimulatedArm(f"reason, {name}", objective="reason", protect=name) for name in ("anchor", "near")]
    arms += [SimulatedArm("ft", editor="ft"), SimulatedArm("control", editor="none")]
    rows, runs = simulate(arms, seeds=(0, 1), n_edits=12, n_intrinsic=16, generator=np.random.default_rng(3))
    of_arm = [SHARES[name] for name in runs["protect"].where(runs["protect"] != "near", "none")]
    runs["downstream_after"] = [
        (2 + seed) * (1 + more) for seed, (_, _, more) in zip(runs["seed"], of_arm, strict=True)
    ]
    runs["step_seconds"] = [0.5 * (1 + seed) * time for seed, (_, time, _) in zip(runs["seed"], of_arm, strict=True)]
    runs["figures"] = [json.dumps({0: {0: 4, 20: 3.9, 40: loss}}) for loss in runs["downstream_after"]]
    return Run("run", Answers(rows, runs, draws=200), runs)


@pytest.mark.parametrize(
    ("protect", "protection", "dose"),
    [
        ("none", "", ""),
        ("anchor", "anchor", "usual"),
        ("replay(share=0.40)", "replay", "share 0.4"),
        ("key-anchor+replay(of=others, share=0.3)", "key-anchor+replay of others", "share 0.3"),
        ("anchor(weight=1e-05, every=2)+near(weight=5.0)", "anchor+near", "weight 1e-05, every 2, weight 5"),
    ],
)
def test_numbers_are_doses_and_words_are_kinds(protect: str, protection: str, dose: str) -> None:
    assert told(protect) == (protection, dose)


def test_a_point_is_on_the_front_where_none_beats_it() -> None:
    generator = np.random.default_rng(0)
    right, up = generator.integers(0, 6, (2, 40)).astype(float)
    right[3] = np.nan
    points = list(zip(right, up, strict=True))
    expected = [
        not np.isnan(x) and not any(a >= x and b >= y and (a > x or b > y) for a, b in points) for x, y in points
    ]
    assert on_front(right, up).tolist() == expected
    assert on_front(np.array([1.0, 1.0]), np.array([2.0, 2.0])).all(), "equal points do not beat each other"


def test_families_differ_in_their_protection_alone_and_cost_by_the_arm_without(run: Run) -> None:
    found = frontier_of(run).set_index("arm")
    assert found["number"].tolist() == list(range(1, 10))
    assert found["family"].unique().tolist() == ["text", "reason"]
    assert found["against"].unique().tolist() == ["held by none", "reason, anchor"]
    for name, (_, time, more) in SHARES.items():
        line = found.loc[f"held by {name}"]
        assert line["time"] == pytest.approx(time) and line["downstream"] == pytest.approx(more, abs=1e-12)
        estimate = run.estimate(f"held by {name}", "retention_paraphrase")
        assert (line["retention_paraphrase"], line["retention_paraphrase_low"]) == (estimate.value, estimate.low)
    text = found[found["family"] == "text"]
    worst = [2 * 1.1, 3 * 1.1]
    assert text["durability_start"].eq(4).all() and text["durability_end"].tolist() == pytest.approx(
        [np.mean(worst)] * 7
    )
    assert text["durability"].between(text["durability_low"], text["durability_high"]).all()
    fronts = dict(zip(found.index, found["front"], strict=True))
    for cost in ("downstream", "time"):
        beaten = {
            one
            for one, other in itertools.permutations(text.index, 2)
            if (text.loc[other, cost] <= text.loc[one, cost] + 1e-12)
            and text.loc[other, "retention_edited"] >= text.loc[one, "retention_edited"]
            and (
                text.loc[other, cost] < text.loc[one, cost] - 1e-12
                or text.loc[other, "retention_edited"] > text.loc[one, "retention_edited"]
            )
        }
        assert {arm for arm in text.index if cost not in fronts[arm]} == beaten
    alone = Run("one", run.answers, run.runs[run.runs["objective"] == "text"])
    assert frontier_of(alone)["family"].unique().tolist() == ["memit, text"]
    assert frontier_of(Run("few", run.answers, run.runs[run.runs["protect"] == "none"])).empty


def test_the_table_says_what_the_file_says(run: Run, tmp_path: Path) -> None:
    parts = list(EXHIBITS.get("frontier").show(run))
    write_files(tmp_path, parts)
    (grid,) = (part.frame for part in walk(parts) if isinstance(part, Grid) and part.file == "frontier")
    file = pd.read_csv(tmp_path / "tables" / "frontier.csv", index_col="arm")
    assert grid["arm"].tolist() == list(file.index)
    line = grid.set_index("arm").loc["held by near(weight=100.0)"]
    assert (line["downstream"], line["time"]) == ("+10.0%", "1.00")
    assert line["over held-out figures"] == "4.000 to 2.750"
    assert line["edited kept [95%]"].startswith(f"{file.loc[line.name, 'retention_edited']:.0%} [")
    plain = grid.iloc[0]
    assert (plain["protection"], plain["dose"], plain["downstream"]) == ("none", MISSING, "0")
    assert MINUS not in "".join(grid["time"])
    assert {path.name for path in (tmp_path / "figures").glob("frontier*.pdf")} == {"frontier-1.pdf", "frontier-2.pdf"}


@pytest.mark.parametrize("timed", [True, False])
def test_the_picture_keeps_its_words_inside_and_its_numbers_apart(run: Run, timed: bool) -> None:
    run = run if timed else Run("older", run.answers, run.runs.drop(columns="step_seconds"))
    parts = [part for part in walk(EXHIBITS.get("frontier").show(run)) if isinstance(part, Picture)]
    for part in (part for part in parts if part.file.startswith("frontier")):
        figure = part.draw()
        assert len(figure.axes) == (6 if timed else 3)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        for words in drawn_words(figure):
            box = words.get_window_extent()
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, words
        for axes in figure.axes:
            boxes = [one.get_window_extent() for one in axes.texts if isinstance(one, Annotation)]
            assert len(boxes) == (7 if part.file == "frontier-1" else 2)
            assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
            assert axes.xaxis_inverted(), "up and to the right is better"
