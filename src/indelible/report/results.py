"""The results in a run folder: sealed when all of them were written, and checked whenever they are read.

A table that lost a few bits, its rows or a column mostly reads well. So ``sha256.json`` has the hashes of all that a
report is made from, and of all that is made of it. Runs of older versions have none; of every table the columns that
all of them need are checked, and that numbers are numbers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from indelible.errors import StoreError
from indelible.files import damaged, read_bytes, whole_file
from indelible.hashes import HASHES, digest_of, read_sealed, sealed, unlike
from indelible.numbers.measures import require_columns

if TYPE_CHECKING:
    import pandas as pd

_SHA256 = "sha256"
_MADE_FROM = ("*.parquet", "config.yaml", "provenance.json")
_MADE = ("summary.json", "claims.json", "report.html", "figures/*", "tables/*")
_NEEDED = {
    "facts": ("arm", "editor", "seed", "phase", "fact_set", "fact_id", "kind", "success"),
    "runs": ("arm", "editor", "seed", "status"),
}
_NUMBERS = frozenset(
    (
        *("paraphrases", "seed", "step", "tokens", "copy", "wording", "success", "first_token", "log_prob"),
        *("probability", "margin", "rank", "downstream_before", "downstream_after", "reached", "steps", "seconds"),
        *("step_seconds", "fixed_seconds", "arrived", "dropped", "layer", "cosine", "norm_change"),
    )
)


def read_results(folder: Path) -> dict[str, pd.DataFrame]:
    """All tables of a run folder, by name ("facts", "runs").

    Raises:
        StoreError: what a report is made from is missing, or no longer as it was written, or holds no rows.
        DataError: a table lacks a column that all of its kind have.
    """
    if names := spoiled(folder):
        if names == [HASHES]:
            raise damaged(folder / HASHES)
        raise StoreError(
            f"{', '.join(names)} of {folder} {'is' if len(names) == 1 else 'are'} not as the study wrote "
            f"{'it' if len(names) == 1 else 'them'}.",
            "Run the study again: finished steps are kept.",
        )
    paths = sorted(folder.glob("*.parquet"))
    return {path.stem: _checked(path, read_table(path, coded=path.stem == "facts")) for path in paths}


def read_table(path: Path, *, coded: bool = False) -> pd.DataFrame:
    """A table of a run folder; a StoreError where it is missing, or damaged. ``coded``: texts are categories, and
    columns are read one after another, so that there is never a second copy of millions of rows."""
    import pandas as pd
    from pyarrow import parquet

    raw = read_bytes(path, "table", StoreError)
    try:
        if not coded:
            return pd.read_parquet(io.BytesIO(raw))
        kinds = {column.name: str(column.type) for column in parquet.read_schema(io.BytesIO(raw))}
        texts = [name for name, kind in kinds.items() if kind in ("string", "large_string")]
        columns = {
            name: pd.read_parquet(io.BytesIO(raw), columns=[name], read_dictionary=texts)[name] for name in kinds
        }
        return pd.DataFrame(columns, copy=False)
    except Exception:  # pandas and pyarrow raise a dozen kinds for what they cannot read
        raise damaged(path) from None


def seal_results(folder: Path) -> None:
    """Note the hashes of all results, once they are written. Raises a StoreError if that cannot be."""
    found = {path.relative_to(folder).as_posix() for pattern in (*_MADE_FROM, *_MADE) for path in folder.glob(pattern)}
    hashes = {name: digest for name in sorted(found) if (digest := digest_of(folder / name)) is not None}
    with whole_file(folder / HASHES) as path:
        path.write_text(json.dumps(sealed({_SHA256: hashes}), indent=1) + "\n", encoding="utf-8")


def spoiled(folder: Path) -> list[str]:
    """Names of what a report is made from and is missing or no longer as it was written; that of the hashes alone,
    where these are damaged."""
    try:
        kept = _sealed_in(folder)
    except StoreError:
        return [HASHES]
    return unlike(folder, {name: kept[name] for name in _of(_MADE_FROM, kept)})


def changed_since(folder: Path) -> list[str]:
    """Names of what was made of the tables, such as the report, and is no longer as it was written."""
    kept = _sealed_in(folder)
    return unlike(folder, {name: kept[name] for name in _of(_MADE, kept)})


def _sealed_in(folder: Path) -> dict[str, str]:
    """The hashes of a run's results by name; none of an older version's, or of one that was stopped at the end."""
    path = folder / HASHES
    if not path.exists():
        return {}
    content = read_sealed(path, besides=_SHA256)
    if _SHA256 not in content:
        raise damaged(path)
    return dict(content[_SHA256])


def _of(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(Path(name).match(pattern) for pattern in patterns)]


def _checked(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    from pandas.api.types import is_numeric_dtype

    needed = _NEEDED.get(path.stem, ())
    if needed and table.empty:
        raise StoreError(f"{path.parent} holds no answers: {path.name} is empty.", "Run the study again.")
    require_columns(table, needed, f"table {path}")
    for name in _NUMBERS.intersection(table.columns):
        if not (is_numeric_dtype(table[name]) or table[name].isna().all()):
            raise damaged(path)
    return table
