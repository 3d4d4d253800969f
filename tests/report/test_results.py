"""A run's results are known again: whatever harm comes to a file of them is told in one line, whoever reads it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from indelible.cli.main import main
from indelible.errors import DataError, StoreError
from indelible.report.folder import read_run
from indelible.report.results import changed_since, read_results, seal_results
from simulated import ARMS, simulate

MADE_FROM = ("facts.parquet", "runs.parquet", "shares.parquet", "config.yaml", "provenance.json", "sha256.json")
MADE = ("summary.json", "report.html", "tables/effects.csv", "figures/phases.svg")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, sealed; its page and tables are no more than their names, which is all that is asked of them."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    rows, runs = simulate(ARMS[:2], n_edits=8, n_intrinsic=12, generator=np.random.default_rng(0))
    for name in MADE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    rows.to_parquet(folder / "facts.parquet", index=False)
    runs.to_parquet(folder / "runs.parquet", index=False)
    rows[["arm", "seed"]].to_parquet(folder / "shares.parquet", index=False)
    arms = [{"name": arm.name, "editor": arm.editor} for arm in ARMS[:2]]
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "run", "model": "m", "arms": arms}), encoding="utf-8")
    (folder / "provenance.json").write_text('{"command": "indelible study run.yaml"}', encoding="utf-8")
    seal_results(folder)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_no_harm_to_what_a_report_is_made_from_goes_unnoticed(run: Path) -> None:
    chance, disturbed = random.Random(0), 0
    read_run(run)
    for name in MADE_FROM:
        path = run / name
        kept = path.read_bytes()
        harms: list[Callable[[], object]] = [lambda: path.write_bytes(b""), lambda: path.write_bytes(kept[:-9])]  # noqa: B023
        harms += [path.unlink] if name != "sha256.json" else []
        for bit in chance.sample(range(8 * len(kept)), 40):
            flipped = bytearray(kept)
            flipped[bit // 8] ^= 1 << bit % 8
            harms.append(lambda content=bytes(flipped): path.write_bytes(content))  # noqa: B023
        for harm in harms:
            harm()
            with pytest.raises(StoreError, match=f"{name}.* (not as the study wrote it|is damaged|is missing)"):
                read_run(run)
            path.write_bytes(kept)
            disturbed += 1
    read_run(run)
    assert disturbed > 250


def test_what_was_made_of_the_tables_and_is_no_longer_so_is_told(run: Path) -> None:
    assert changed_since(run) == []
    (run / "report.html").write_text("other")
    (run / "tables" / "effects.csv").unlink()
    assert changed_since(run) == ["report.html", "tables/effects.csv"]
    read_run(run)


def test_every_command_says_so_in_one_line(run: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_parquet(run / "facts.parquet")
    table.loc[0, "success"] = not table.loc[0, "success"]
    table.to_parquet(run / "facts.parquet", index=False)
    for typed in (["report", run], ["report", whole, run], ["plan", "--from", run]):
        assert main([*map(str, typed)]) == 2
        shown = capsys.readouterr()
        said = f"Error: facts.parquet of {run} is not as the study wrote it. Run the study again"
        assert shown.err.startswith(said) and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize("name", ["facts.parquet", "runs.parquet"])
def test_tables_of_versions_without_hashes_have_rows_their_columns_and_numbers(run: Path, name: str) -> None:
    (run / "sha256.json").unlink()
    whole = pd.read_parquet(run / name)
    read_results(run)
    harms: tuple[tuple[pd.DataFrame, type[Exception], str], ...] = (
        (whole.iloc[:0], StoreError, "holds no answers"),
        (pd.DataFrame(), StoreError, "holds no answers"),
        (whole.drop(columns="arm"), DataError, f"{name} lacks the column arm"),
        (whole.astype(str), StoreError, f"{name} is damaged"),
    )
    for table, kind, said in harms:
        table.to_parquet(run / name, index=False)
        with pytest.raises(kind, match=said):
            read_results(run)
