"""Files for papers: what is written, that it says what the tables say, that LaTeX can read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_figures import RULING, SHARES

from indelible.errors import StoreError
from indelible.numbers.answers import Answers
from indelible.numbers.summary import summarise
from indelible.numbers.words import Table
from indelible.report.evidence import Evidence, gather
from indelible.report.exports import write_exports
from indelible.report.latex import escaped, latex_table
from indelible.why.drift_summary import drift_summary
from simulated import ARMS, SimulatedArm, simulate

EVIL = r"50% of $x_1$ & {b} ~ ^ # \n <i>"
DRIFT = drift_summary(
    pd.DataFrame(
        [
            ("memit", 0, fact, quantity, layer, cosine, 0.01)
            for quantity, layer in (("output_by_weight", 3), ("state", None))
            for fact, cosine in (("a", 0.8), ("b", 0.9))
        ],
        columns=["arm", "seed", "fact_id", "quantity", "layer", "cosine", "norm_change"],
    ).astype({"layer": "Int64"}),
    draws=100,
)
Study = tuple[pd.DataFrame, pd.DataFrame, Evidence]


@pytest.fixture(scope="module")
def study() -> Study:
    arms = (*ARMS[:2], *ARMS[5:], SimulatedArm(EVIL, editor="ft"))
    rows, runs = simulate(arms, seeds=(0, 1), n_edits=8, n_intrinsic=12, generator=np.random.default_rng(0))
    summary = summarise(Answers(rows, draws=100), runs)
    return rows, runs, gather(Answers(rows), runs, summary, rulings=(RULING,), shares=SHARES, drift=DRIFT)


@pytest.fixture(scope="module")
def folder(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_exports(folder, study[2], Answers(study[0]))
    return folder


def test_every_table_is_there_as_numbers_and_as_latex(folder: Path) -> None:
    names = {path.name for path in (folder / "tables").iterdir()}
    both = {"curves", "heat-map", "trade-off", "claims", "shares", "drift"}
    assert names == {
        *(f"{name}.csv" for name in (*both, "summary", "retention", "facts", "effects")),
        *(f"{name}.tex" for name in (*both, "headline", "gap", "sizes")),
    }
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert {f"{name}.{ending}" for name in figures for ending in ("svg", "pdf")} == {
        path.name for path in (folder / "figures").iterdir()
    }
    assert {path.name for path in folder.iterdir()} == {"figures", "tables"}


def test_the_files_hold_the_figures_of_the_study(folder: Path, study: Study) -> None:
    rows, _, evidence = study
    summary = pd.read_csv(folder / "tables" / "summary.csv", index_col="arm")
    assert summary.loc["memit", "gap"] == pytest.approx(evidence.summary[0]["gap"])
    retention = pd.read_csv(folder / "tables" / "retention.csv").set_index(["arm", "measure"])
    found = evidence.retention["memit"]["retention_edited"]
    line = retention.loc[("memit", "retention_edited")]
    assert (line["value"], line["low"], line["high"]) == pytest.approx((found.value, found.low, found.high))
    assert line["value"] == pytest.approx(evidence.summary[0]["retention_edited"])
    facts = pd.read_csv(folder / "tables" / "facts.csv")
    asked = rows[(rows["kind"] == "prompt") & (rows["phase"] == "tuned")]
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


def test_the_drift_of_no_layer_has_no_layer(folder: Path) -> None:
    drift = pd.read_csv(folder / "tables" / "drift.csv")
    assert drift["cosine"].tolist() == pytest.approx([0.85, 0.85])
    assert drift["layer"].isna().tolist() == [False, True] and drift["layer"][0] == 3


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_old(folder: Path, study: Study, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    (again / "figures" / "old.svg").write_text("of another study")
    write_exports(again, study[2], Answers(study[0]))
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (folder, again)
    )
    assert first == second


def test_latex_is_escaped_and_complete(folder: Path) -> None:
    for path in (folder / "tables").glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert text.count(r"\begin{") == text.count(r"\end{") == 2, path.name
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        for line in body.splitlines()[1:]:
            if line == r"\midrule":
                continue
            assert line.endswith(r" \\")
            plain = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|ldots)\{\}", "", line)
            plain = re.sub(r"\\[&%$#_{}]|\$[-\\a-z]+\$|\\\\$|\{\[\}", "", plain.replace(" & ", ""))
            assert not re.search(r"[&%$#_{}~^\\]", plain), (path.name, line)
    assert escaped(EVIL) == (
        r"50\% of \$x\_1\$ \& \{b\} \textasciitilde{} \textasciicircum{} \# \textbackslash{}n "
        r"\textless{}i\textgreater{}"
    )
    assert escaped("[1, 2]") == "{[}1, 2]"
    assert escaped("*bold") == "{*}bold"


def test_columns_of_numbers_are_flush_right() -> None:
    table = Table(("arm", "gap", "p", "note"), (("a", "+2 [−1, +5]", "< 0.001", "x"), ("b", "–", "0.5", "1 y")))  # noqa: RUF001
    text = latex_table(table, caption="A & B", label="tab:t")
    assert r"\begin{tabular}{lrrl}" in text
    assert r"\caption{A \& B}" in text
    assert r"a & +2 [$-$1, +5] & \textless{} 0.001 & x \\" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_takes_the_tables(folder: Path, tmp_path: Path) -> None:
    inputs = "\n".join(rf"\input{{{path}}}" for path in sorted((folder / "tables").glob("*.tex")))
    source = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_a_folder_that_cannot_be_written_is_one_clear_error(study: Study, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_exports(tmp_path / "missing", study[2], Answers(study[0]))
