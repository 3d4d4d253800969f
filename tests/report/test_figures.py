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
from indelible.report.drawing.heat_map import STRONGEST_WASH, heat_map
from indelible.report.drawing.retention_curves import curve_panel, in_short
from indelible.report.drawing.style import COLOURS, STRONG, inline_svg
from indelible.report.exhibit import Picture, Words, shown, walk
from indelible.report.exhibits.curves import STEPS, curves_of
from indelible.report.exhibits.gap import forest
from indelible.report.exhibits.heat_maps import cells
from indelible.report.exhibits.trade_offs import gains
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
    return ((part.file, part.draw()) for part in walk(shown(run)) if isinstance(part, Picture) and part.file)


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
        "overview",
        "claim-edits-fail-more-often",
        "curves",
        "extra-loss",
        "gap",
        "heat-map-retention",
        "heat-map-gap",
        "trade-off-text-loss",
        "trade-off-reason-loss",
        "shares-1",
        *("overview", "curves", "curves-by-figure", "extra-loss", "gap", "trade-off-text-loss"),
    ]


@pytest.mark.parametrize("measure", ["gap", "excess_loss"])
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


def test_heat_maps_take_the_first_factor_that_differs(run: Run) -> None:
    found = cells(run.measured)
    assert found is not None and list(found.columns[:2]) == ["editor", "objective"]
    places = list(zip(found["editor"], found["objective"], strict=True))
    assert places == [("memit", "text"), ("memit", "reason"), ("ft-m", "text"), ("ft-m", "reason")]
    cell = [line for line in run.measured if (line["editor"], line["objective"]) == places[-1]]
    last = found.iloc[-1]
    assert last["arms"] == len(cell) == 2 and last["gap"] == pytest.approx(np.mean([line["gap"] for line in cell]))
    by_mask = cells([line for line in run.measured if line["objective"] == "text"])
    assert by_mask is not None and by_mask.columns[1] == "mask"
    assert cells([line for line in run.measured if line["editor"] == "memit"]) is None


def test_cells_say_their_values_and_empty_ones_a_dash() -> None:
    heat = pd.DataFrame({"x": [-0.12, np.nan]}, index=["a", "b"])
    assert {"−12", "–"} <= set(texts(inline_svg(heat_map(heat, "difference"), "h", "d")))  # noqa: RUF001


def test_trade_offs_turn_every_figure_so_that_up_is_better(run: Run) -> None:
    found = gains(run)
    assert found["objective"].tolist() == ["text"] * 4 + ["reason"] * 4
    assert found["number"].tolist() == list(range(1, 9))
    assert found["gain"].tolist() == pytest.approx([3.412 - 2.871] * 8)  # a fall in loss
    axis = next(figure for name, figure in pictures(run) if name == "trade-off-text-loss").axes[0].get_xlabel()
    assert axis == "downstream gain: fall in loss"


def test_nothing_to_draw_is_no_error() -> None:
    rows, runs = simulate(ARMS[4:5], n_edits=3, n_intrinsic=3, generator=np.random.default_rng(0))
    assert [name for name, _ in pictures(Run("run", Answers(rows, draws=50), runs))] == ["overview"]


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
    for name in ("kept", "edited", "intrinsic"):  # words on the strongest cells of a heat map
        assert contrast(colours["ink"], washed(colours[name], colours["paper"], STRONGEST_WASH)) >= 4.5, name


def test_saved_figures_and_the_light_page_have_the_same_colours() -> None:
    light = themes()[0]
    assert {name: light[name] for name in COLOURS} == dict(COLOURS)
    assert light["ink"] == STRONG
