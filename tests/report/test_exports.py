"""Files for papers: what is written, that it says what the tables say, that LaTeX can read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_figures import DRIFT, MIXTURES, RULING

from indelible.errors import StoreError
from indelible.numbers.answers import Answers
from indelible.report.exhibit import Fold, Grid, shown
from indelible.report.exhibits.results import results
from indelible.report.report import latex, write_files, write_report
from indelible.report.run import Run
from simulated import ARMS, SimulatedArm, simulate

EVIL = r"=50% of $x_1$ & {b} ~ ^ # \n <i>"


@pytest.fixture(scope="module")
def run() -> Run:
    arms = (*ARMS[:2], *ARMS[5:], SimulatedArm(EVIL, editor="ft"))
    rows, runs = simulate(arms, seeds=(0, 1), n_edits=8, n_intrinsic=12, generator=np.random.default_rng(0))
    tables = {"shares": MIXTURES, "drift": DRIFT}
    return Run("run", Answers(rows, draws=400), runs, rulings=(RULING,), tables=tables)


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_report(folder / "report.html", run)
    return folder


def test_every_table_is_there_as_numbers_and_as_latex(folder: Path) -> None:
    names = {path.name for path in (folder / "tables").iterdir()}
    both = {"phases", "curves", "trade-off", "claims", "shares", "forecast", "drift"}
    assert names == {
        *(f"{name}.csv" for name in (*both, "summary", "retention", "facts", "effects")),
        *(f"{name}.tex" for name in (*both, "headline", "kept", "sizes")),
    }
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {f"{Path(name).stem}{ending}" for name in figures for ending in (".svg", ".pdf")}
    assert {path.name for path in folder.iterdir()} == {"report.html", "figures", "tables"}


def test_the_files_hold_the_figures_of_the_study(folder: Path, run: Run) -> None:
    summary = pd.read_csv(folder / "tables" / "summary.csv", index_col="arm")
    assert summary.loc["memit", "gap"] == pytest.approx(run.summary[0]["gap"])
    retention = pd.read_csv(folder / "tables" / "retention.csv").set_index(["arm", "measure"])
    line = retention.loc[("memit", "retention_edited")]
    found = run.estimate("memit", "retention_edited")
    assert (line["low"], line["high"]) == pytest.approx((found.low, found.high))
    assert line["value"] == pytest.approx(run.summary[0]["retention_edited"])
    facts = pd.read_csv(folder / "tables" / "facts.csv")
    asked = run.answers.rows[(run.answers.rows["kind"] == "prompt") & (run.answers.rows["phase"] == "tuned")]
    control = (asked["editor"] == "none") & (asked["fact_set"] == "edited")
    assert len(facts) == int((~control).sum())
    of_memit = facts[(facts["arm"] == "memit") & (facts["fact_set"] == "edited")]
    kept = (of_memit["outcome"] == "kept").sum() / of_memit["outcome"].isin(["kept", "lost"]).sum()
    assert kept == pytest.approx(line["value"])
    curves = pd.read_csv(folder / "tables" / "curves.csv")
    end = curves[(curves["arm"] == "memit") & (curves["series"] == "edited")].iloc[-1]
    assert end["retention"] == pytest.approx(line["value"])
    claims = pd.read_csv(folder / "tables" / "claims.csv")
    assert list(claims["comparison"]) == ["all", *(finding.comparison for finding in RULING.findings)]
    drift = pd.read_csv(folder / "tables" / "drift.csv")
    assert drift["cosine"].tolist() == pytest.approx([0.85, 0.85])
    assert drift["layer"].isna().tolist() == [False, True] and drift["layer"][0] == 3


def test_no_cell_of_a_spreadsheet_begins_as_a_formula_does(folder: Path, run: Run) -> None:
    tables = [pd.read_csv(path, dtype=str) for path in (folder / "tables").glob("*.csv")]
    texts = pd.concat(table.select_dtypes("str").stack() for table in tables)
    begun = texts[texts.str.match(r"[=+\-@]")]
    assert pd.to_numeric(begun, errors="coerce").notna().all() and (texts == f"'{EVIL}").sum() > len(tables)
    assert f"\n{EVIL}" not in (folder / "report.html").read_text(encoding="utf-8")


def test_figures_beside_the_one_an_arm_is_judged_by_are_told_too(run: Run) -> None:
    told = [
        json.dumps({"before": {"loss": 3.0, "lm_eval/own/acc": 0.5}, "after": {"loss": 2.0, "lm_eval/own/acc": after}})
        for after in np.linspace(0.2, 0.6, len(run.runs))
    ]
    runs = run.runs.assign(downstream=told)
    (fold,) = [part for part in results(replace(run, runs=runs)) if isinstance(part, Fold) and "figures" in part.title]
    (grid,) = fold.parts
    assert isinstance(grid, Grid) and grid.data is not None
    mine = grid.data[grid.data["figure"] == "lm_eval/own/acc"].set_index("arm")["after"]
    for arm, own in runs.groupby("arm"):
        after = [json.loads(text)["after"]["lm_eval/own/acc"] for text in own["downstream"]]
        assert mine[arm] == pytest.approx(np.mean(after))
    assert not [part for part in results(run) if isinstance(part, Fold) and "figures" in part.title]


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_old(folder: Path, run: Run, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    (again / "figures" / "old.svg").write_text("of another study")
    write_report(again / "report.html", run)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (folder, again)
    )
    assert first == second


def test_latex_is_escaped_and_complete(folder: Path) -> None:
    for path in (folder / "tables").glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert text.count(r"\begin{") == text.count(r"\end{"), path.name
        bodies = re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)
        assert bodies, path.name
        for line in "".join(bodies).splitlines():
            assert line.endswith(r" \\")
            plain = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|ldots)\{\}", "", line)
            plain = re.sub(r"\\[&%$#_{}]|\$[-\\a-z]+\$|\\\\$|\{\[\}", "", plain.replace(" & ", ""))
            assert not re.search(r"[&%$#_{}~^\\]", plain), (path.name, line)


def test_cells_that_latex_would_take_for_commands_are_text_and_numbers_are_flush_right() -> None:
    rows = [("[1, 2]", "+2 [−1, +5]", "< 0.001", "x\n\ny"), ("*b", "–", "0.5", "1 y")]  # noqa: RUF001
    grid = Grid(pd.DataFrame(rows, columns=["arm", "gap", "p", "a_b"]), "A & B", "t")
    text = latex(grid)
    assert r"\begin{tabular}{lrrl}" in text and r"\caption{A \& B}" in text and r"arm & gap & p & a\_b \\" in text
    assert "\n{[}1, 2] & +2 [$-$1, +5] & \\textless{} 0.001 & x y \\\\\n" in text
    assert "\n{*}b & -- & 0.5 & 1 y \\\\\n" in text


def test_a_table_wider_than_the_text_is_several_that_begin_with_its_first_column() -> None:
    names = [f"a measure with a long name {place}" for place in range(9)]
    rows = [(arm, *["+19 [+6, +31]"] * len(names)) for arm in ("memit", "a very long name of an arm, " * 3)]
    text = latex(Grid(pd.DataFrame(rows, columns=["arm", *names]), "Wide.", "t"))
    parts = text.split(r"\begin{tabular}{")[1:]
    settings = [part.partition("}\n")[0] for part in parts if part.startswith("p{153pt}")]
    assert len(settings) == 5 and sum(one.count("r") for one in settings) == len(names)
    assert text.count("memit & ") == len(settings) and text.count(r"\begin{table}") == 1
    long = latex(Grid(pd.DataFrame(rows * 20, columns=["arm", *names]), "Long.", "t"))
    assert long.count(r"\begin{table}") == 2 * len(settings) and long.count("memit & ") == 20 * len(settings)
    assert r"\caption{Long. (10 of 10)}" in long and r"\label{tab:t-10}" in long and r"\label{tab:t}" in long


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_takes_the_tables_and_none_is_wider_than_the_text(folder: Path, tmp_path: Path) -> None:
    inputs = "\n".join(rf"\input{{{path}}}\clearpage" for path in sorted((folder / "tables").glob("*.tex")))
    source = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert "Overfull \\hbox" not in (tmp_path / "all.log").read_text(encoding="utf-8", errors="replace")


def test_a_folder_that_cannot_be_written_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="cannot be written"):
        write_files(tmp_path / "file", shown(replace(run, tables={})))
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(tmp_path / "missing" / "report.html", replace(run, tables={}))
