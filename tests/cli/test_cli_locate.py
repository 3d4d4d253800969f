"""`indelible locate` on a taught tiny model, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from indelible.cli.main import main


def test_traces_open_in_pandas_and_a_picture_is_drawn(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["locate", str(taught / "model"), "--facts", str(taught / "facts.jsonl"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--limit", "3", "--samples", "1", "--span", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = pd.read_parquet(tmp_path / "out" / "traces.parquet")
    assert found["facts"] == rows["fact_id"].nunique() == 3
    at_subject = rows[(rows["group"] == "last subject token") & (rows["kind"] == "mlp")]
    means = at_subject.groupby("layer")["effect"].mean()
    assert found["effects"]["mlp"] == pytest.approx(means.tolist(), abs=1e-6)
    assert found["layers"] == [int(means.idxmax())]
    assert (rows["effect"] - (rows["restored"] - rows["corrupted"])).abs().max() < 1e-12
    picture = (tmp_path / "out" / "tracing.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000
    assert main([*arguments, "--limit", "2", "--samples", "1", "--kind", "hidden"]) == 0
    said = capsys.readouterr().out
    assert "hidden" in said and "layers: auto" not in said
    assert main([*arguments, "--limit", "2", "--samples", "1", "--kind", "mlp"]) == 0
    assert "layers: auto, with 3 of them, would edit [" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--kind", "mpl"], "Did you mean 'mlp'"),
        (["--facts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--limit", "0"], "limit"),
    ],
)
def test_mistakes_are_one_clear_line(
    more: list[str], words: str, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["locate", str(taught / "model"), "-o", str(tmp_path / "out"), *more]) == 2
    shown = capsys.readouterr()
    assert words in shown.err and len(shown.err.splitlines()) == 1 and shown.out == ""
    assert not (tmp_path / "out").exists()
