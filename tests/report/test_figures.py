"""Figures: what stands in them, that nothing leaves their edges, that colours can be read and told apart."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from html import unescape
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from indelible.claims.rulings import Finding, Ruling
from indelible.numbers.answers import Answers
from indelible.numbers.arms import pairs_with_control
from indelible.numbers.estimate import Estimate
from indelible.report.drawing.dot_plot import direction
from indelible.report.drawing.phases import phases
from indelible.report.drawing.retention_curves import curve_panel, in_short
from indelible.report.drawing.style import COLOURS, STRONG, inline_svg
from indelible.report.exhibit import Picture, Words, shown, walk
from indelible.report.exhibits.answer import answered, short
from indelible.report.exhibits.curves import STEPS, curves_of
from indelible.report.exhibits.gap import forest
from indelible.report.exhibits.trade_offs import gains, trade_offs
from indelible.report.run import Run
from simulated import ARMS, SimulatedArm, simulate

GRID = [
    SimulatedArm(
        f"{editor}, {objective}, {mask} <&$x_1$>",
        editor=editor,
        objective=objective,
        mask=mask,
        retention_edited=retention,
    )
    for (editor, retention), objective, mask in itertools.product(
        (("memit", 0.8), ("ft-m", 0.3)), ("text", "reason"), ("none", "edited-layers")
    )
] + [SimulatedArm("control, text", editor="none", objective="text")]

RULING = Ruling(
    claim="edits-fail-more-often",
    family="",
    sentence="Edits fail more often.",
    decision="supported",
    effect=Estimate(0.2, 0.1, 0.3),
    unit="share",
    smallest=0.05,
    detectable=0.14,
    why="Because.",
    findings=(
        Finding("memit, text", "supported", Estimate(0.3, 0.1, 0.5, 0.001, 24, 3)),
        Finding("a comparison with a name that is much longer than its column", "cannot tell", Estimate()),
    ),
)
MIXTURES = pd.DataFrame(
    [
        ("memit", 0, fact_set, f"{fact}", mixture, bool(kept and fact_set == "edited"), -1.0)
        for fact_set in ("edited", "intrinsic")  # of which none had succeeded
        for fact in range(6)
        for mixture, kept in (
            ("none", True),
            ("below", fact > 1),
            ("projections", fact != 5),
            ("below+projections", fact > 2),
        )
    ],
    columns=["arm", "seed", "fact_set", "fact_id", "mixture", "success", "log_prob"],
)
DRIFT = pd.DataFrame(
    [
        ("memit", 0, fact, quantity, layer, cosine, 0.01)
        for quantity, layer in (("output_by_weight", 3), ("state", None))
        for fact, cosine in (("a", 0.8), ("b", 0.9))
    ],
    columns=["arm", "seed", "fact_id", "quantity", "layer", "cosine", "norm_change"],
).astype({"layer": "Int64"})


@pytest.fixture(scope="module")
def run() -> Run:
    rows, runs = simulate(GRID, seeds=(0, 1), n_edits=8, n_intrinsic=12, generator=np.random.default_rng(0))
    return Run("run", Answers(rows, draws=400), runs, rulings=(RULING,), tables={"shares": MIXTURES})


def pictures(run: Run) -> Iterator[tuple[str, Figure]]:
    for part in walk(shown(run)):
        if isinstance(part, Picture) and part.file:
            yield part.file, part.draw()
            if part.narrow is not None:
                yield f"{part.file}, narrow", part.narrow()


def texts(svg: str) -> list[str]:
    return [unescape(found) for found in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def drawn_words(figure: Figure) -> Iterator[Text]:
    """Every text of a figure but the labels of ticks that lie outside the axes, which are not drawn."""
    found = [*figure.texts, *(words for legend in figure.legends for words in legend.get_texts())]
    for axes in figure.axes:
        found += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, sorted(axes.get_ylim()))):
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return (words for words in found if words.get_text().strip())


DOSES = [500, 2_000, 8_000, 32_000]


@pytest.fixture(scope="module")
def by_dose() -> Run:
    arms = [SimulatedArm("memit"), SimulatedArm("control", editor="none")]
    steps = [dose // 500 for dose in DOSES]
    rows, runs = simulate(
        arms, seeds=(0, 1), n_edits=8, n_intrinsic=12, steps=steps, generator=np.random.default_rng(0)
    )
    rows["tokens"] = 510 * rows["step"]
    runs["tuning"] = json.dumps({"dose": DOSES})
    losses = runs["seed"] - runs["editor"].eq("none") + 3.0
    runs["doses"] = [json.dumps({str(dose): loss - place / 10 for place, dose in enumerate(DOSES)}) for loss in losses]
    return Run("doses", Answers(rows, draws=200), runs)


def test_doses_are_drawn_by_ratio_and_by_what_training_was_good_for(by_dose: Run) -> None:
    found = curves_of(by_dose)
    assert found["step"].isna().all() and found["dose"].dropna().unique().tolist() == [0, *DOSES]
    memit = found[found["arm"] == "memit"]
    figures = {series: points["figure"].tolist() for series, points in memit.groupby("series")}
    assert figures["edited"] == pytest.approx([3.412, 3.5, 3.4, 3.3, 3.2])
    assert figures["control"] == pytest.approx([3.412, 2.5, 2.4, 2.3, 2.2]), "at the figures of the control itself"
    parts = list(walk(shown(by_dose)))
    drawn = {part.title: part.draw() for part in parts if isinstance(part, Picture) and part.title.startswith("memit")}
    over_tokens, over_loss = drawn["memit"].axes[0], drawn["memit, by held-out figure"].axes[0]
    assert over_tokens.get_xscale() == "log" and over_tokens.get_xlabel() == "tokens seen in training"
    assert [label.get_text() for label in over_tokens.get_xticklabels()] == ["0", "500", "2k", "8k", "32k"]
    assert over_loss.get_xlabel() == "held-out loss (lower is better)" and over_loss.xaxis_inverted()
    assert {part.file for part in parts if isinstance(part, Picture)} >= {"curves", "curves-by-figure"}
    assert any(isinstance(part, Words) and "by tokens seen in training." in part.text for part in parts)


@pytest.mark.parametrize(("tokens", "words"), [(64, "64"), (2_000, "2k"), (131_072, "131k"), (1_500_000, "1.5M")])
def test_tokens_in_short(tokens: int, words: str) -> None:
    assert in_short(tokens) == words


def test_every_figure_keeps_its_words_inside(run: Run, by_dose: Run) -> None:
    names = []
    for name, figure in [*pictures(run), *pictures(by_dose)]:
        names.append(name)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        for words in drawn_words(figure):
            box = words.get_window_extent()
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, (name, words, box)
    assert names == [
        *("phases", "phases, narrow"),
        "claims-points",
        "extra-loss",
        "lead",
        "curves",
        "trade-off-text-loss",
        "trade-off-reason-loss",
        "shares-1",
        *("phases", "phases, narrow", "extra-loss", "lead", "curves", "curves-by-figure", "trade-off-text-loss"),
    ]


def test_what_is_answered_in_each_phase_is_of_all_edits_and_of_what_base_knew(run: Run) -> None:
    arm = GRID[0].name
    own = run.answers.arm(arm)
    asked = own[(own["kind"] == "prompt") & own["phase"].isin(["base", "edited", "tuned"])]
    wide = asked.pivot(index=["fact_set", "seed", "fact_id"], columns="phase", values="success").astype(float)
    found = answered(run).set_index(["arm", "series", "phase"])["value"]
    for phase in ("base", "edited", "tuned"):
        assert found[arm, "edited", phase] == pytest.approx(wide.loc["edited", phase].mean())
        intrinsic = wide.loc["intrinsic"]
        known = intrinsic.loc[intrinsic["base"] == 1, phase].mean()
        assert found[arm, "intrinsic", phase] == pytest.approx(known)
    control = run.answers.arm("control, text")
    tuned = control[
        (control["kind"] == "prompt") & (control["phase"] == "tuned") & (control["fact_set"] == "intrinsic")
    ]
    assert found[arm, "control", "tuned"] == pytest.approx(tuned["success"].mean())
    assert (GRID[2].name, "control", "tuned") not in found.index, "no control was tuned like it"


def test_the_axis_begins_below_what_is_answered_after_the_edit() -> None:
    points = [("a", "edited", "base", 0.0), ("a", "edited", "edited", 0.95), ("a", "edited", "tuned", 0.62)]
    frame = pd.DataFrame(points, columns=["arm", "series", "phase", "value"]).assign(low=np.nan, high=np.nan)
    figure = phases(frame, ["a"], ["a"])
    assert figure.axes[0].get_ylim() == (0.5, 1.0)
    words = [words.get_text() for words in drawn_words(figure)]
    assert {"62%", "from 0%", "axes begin at 50%"} <= set(words)
    assert phases(frame.assign(value=frame["value"] / 3), ["a"], ["a"]).axes[0].get_ylim() == (0.0, 1.0)


def test_names_are_short_where_all_begin_alike() -> None:
    assert short(["memit, text, none", "memit, text, replay"]) == ["none", "replay"]
    assert short(["memit, text", "memit, reason", "control"]) == ["memit, text", "memit, reason", "control"]
    assert short(["memit"]) == ["memit"] and short([]) == []


@pytest.mark.parametrize("measure", ["lead", "excess_loss"])
def test_the_forest_groups_by_editor_and_shows_every_arm(run: Run, measure: str) -> None:
    shown = texts(inline_svg(forest(run, measure), "forest", "d"))
    assert shown.count("memit") == shown.count("ft-m") == 1
    assert "text, none <&$x_1$>" in shown  # its editor's name stands above it
    assert "mean over arms" not in shown  # of unlike editors
    assert sum(re.fullmatch(r"(0|[+−][\d.]+) \[.*\]", words) is not None for words in shown) == 8  # noqa: RUF001


def test_a_gap_is_marked_by_what_its_interval_says() -> None:
    assert direction(Estimate(0.1, 0.01, 0.2)) == "more"
    assert direction(Estimate(-0.1, -0.2, -0.01)) == "less"
    assert direction(Estimate(0.0, -0.2, 0.1)) == direction(Estimate()) == "unclear"


def test_a_control_stands_in_the_panels_of_arms_that_were_tuned_like_it(run: Run) -> None:
    curves = curves_of(run)
    with_control = set(curves.loc[curves["series"] == "control", "arm"])
    assert with_control == {arm.name for arm in GRID[:-1] if arm.objective == "text"}
    of_arm = curves[curves["arm"] == GRID[0].name]
    beside = curves[(curves["arm"] == "control, text") & (curves["series"] == "intrinsic")]
    assert of_arm.loc[of_arm["series"] == "control", "retention"].tolist() == beside["retention"].tolist()
    panel = inline_svg(curve_panel(of_arm, STEPS.until(40)), "panel", "d")
    assert all(f"var(--{name}," in panel for name in ("edited", "paraphrase", "intrinsic", "control"))


def test_the_nearest_control_is_taken() -> None:
    arms = [
        ("plain", "none", "full", "none"),
        ("masked", "none", "full", "layers:0-5"),
        ("faster", "none", "full", "none"),
        ("a", "memit", "full", "layers:0-5"),
        ("b", "memit", "full", "edited-layers"),
        ("b, faster", "memit", "full", "edited-layers"),
        ("c", "memit", "lora", "none"),
    ]
    runs = pd.DataFrame(arms, columns=["arm", "editor", "tuner", "mask"]).assign(
        objective="text", paraphrases=0, protect="none"
    )
    fast = runs["arm"].str.contains("faster").map({True: 3e-4, False: 1e-4})
    runs["tuning"] = [json.dumps({"learning_rate": rate}) for rate in fast]
    assert dict(pairs_with_control(runs)) == {"a": "masked", "b": "plain", "b, faster": "faster"}


def test_trade_offs_turn_every_figure_so_that_up_is_better(run: Run) -> None:
    found = gains(run)
    assert found["objective"].tolist() == ["text"] * 4 + ["reason"] * 4
    assert found["number"].tolist() == list(range(1, 9))
    assert found["gain"].tolist() == pytest.approx([3.412 - 2.871] * 8)  # a fall in loss
    (drawn,) = [part for part in walk(trade_offs(run)) if isinstance(part, Picture) and part.title == "text"]
    axis = drawn.draw().axes[0].get_xlabel()
    assert axis == "downstream gain: fall in loss"


def test_nothing_to_draw_is_no_error() -> None:
    rows, runs = simulate(ARMS[4:5], n_edits=3, n_intrinsic=3, generator=np.random.default_rng(0))
    assert [name for name, _ in pictures(Run("run", Answers(rows, draws=50), runs))] == ["phases", "phases, narrow"]


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def washed(colour: str, paper: str, share: float) -> str:
    mixed = [
        round(share * int(colour[place : place + 2], 16) + (1 - share) * int(paper[place : place + 2], 16))
        for place in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def themes() -> list[dict[str, str]]:
    """The page's colours in light, dark and print."""
    style = (files("indelible.report") / "templates" / "page.css").read_text(encoding="utf-8")
    found = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    return [
        {
            name: "#" + "".join(2 * digit for digit in colour[1:]) if len(colour) == 4 else colour
            for name, colour in of.items()
        }
        for of in found
    ]


@pytest.mark.parametrize("theme", range(3), ids=["light", "dark", "print"])
def test_colours_can_be_read_on_their_paper(theme: int) -> None:
    colours = themes()[theme]
    assert set(COLOURS) <= set(colours)  # each colour of a figure follows the page
    for name in ("ink", "soft", *COLOURS):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    style = (files("indelible.report") / "templates" / "page.css").read_text(encoding="utf-8")
    washes = re.findall(r"color-mix\(in srgb, var\(--(\w+)\) (\d+)%, var\(--paper\)\)", style)
    assert len(washes) == 5
    for name, share in washes:  # marks of the facts
        assert contrast(colours["ink"], washed(colours[name], colours["paper"], int(share) / 100)) >= 4.5, name


def test_saved_figures_and_the_light_page_have_the_same_colours() -> None:
    light = themes()[0]
    assert {name: light[name] for name in COLOURS} == dict(COLOURS)
    assert light["ink"] == STRONG
