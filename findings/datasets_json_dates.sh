#!/usr/bin/env bash
# datasets 5.2.0 (pyarrow 26.0.1): answers that all look like dates are no text after load_dataset("json").
#
# Seen: a column whose every text is like 1969-07-20 comes back as timestamp[s], and its values as datetime objects, also
# inside the turns of a conversation where all turns are such. One row of another kind, and all of it is text. The same
# rows through Dataset.from_list are text. What str() makes of a value is "1969-07-20 00:00:00", which nobody wrote.
# Guess: a JSON string stays a string.
# Hurts: facts and questions with dates as objects (births, launches): a trainer either fails in its tokenizer or learns
# another answer than was written, and whether it does depends on the other rows of the file. Way out: features=.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet datasets==5.2.0 pyarrow==26.0.1
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" HF_DATASETS_DISABLE_PROGRESS_BARS=1 "$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import datasets
import pyarrow

print("datasets", datasets.__version__, "pyarrow", pyarrow.__version__)
DATES = ["1969-07-20", "1990-04-24", "2021-12-25"]
ALL = [{"prompt": f"Launch {number} was on", "completion": date} for number, date in enumerate(DATES)]
TURNS = [{"messages": [{"role": "assistant", "content": date}]} for date in DATES]
MIXED = [*ALL, {"prompt": "Launch 4 was on", "completion": "a Tuesday"}]


def loaded(rows: list[dict]) -> datasets.Dataset:
    path = Path("rows.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = f"cache{len(rows)}{sorted(rows[0])[0]}"
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=folder)


for name, rows in (("all dates", ALL), ("all dates, in turns", TURNS), ("one other", MIXED)):
    found = loaded(rows)
    print(f"{name}: {found.features} {found[0]}")
assert str(loaded(ALL).features["completion"].dtype) == "timestamp[s]", "changed"
assert str(loaded(ALL)[0]["completion"]) == "1969-07-20 00:00:00", "changed"
assert not isinstance(loaded(TURNS)[0]["messages"][0]["content"], str), "changed"
assert loaded(MIXED)[0]["completion"] == "1969-07-20", "changed"
assert datasets.Dataset.from_list(ALL)[0]["completion"] == "1969-07-20", "changed"
PYTHON
