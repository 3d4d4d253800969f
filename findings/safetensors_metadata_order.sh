#!/usr/bin/env bash
# safetensors 0.8.0 (numpy 2.4.6): a file with two or more metadata entries has other bytes at every save.
#
# Seen: with no entry or one, all saves of the same tensors give one SHA-256; with six, eight saves in one process and
# over four processes give many. The tensors are sorted, the metadata are not: their order in the header is that of a
# hash map with a seed of its own at each save. What is loaded is equal.
# Guess: the same tensors and the same metadata give the same file.
# Hurts: whoever keeps adapters or deltas by the hash of the file, caches or signs them, or tests that a run gives the
# same bytes. Ways out: one entry that holds all others as sorted JSON, or a hash of the loaded content.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet safetensors==0.8.0 numpy==2.4.6
cat > "$folder/seen.py" <<'PYTHON'
import hashlib
import sys

import numpy
from safetensors import safe_open
from safetensors.numpy import save, save_file

count, path = int(sys.argv[1]), sys.argv[2]
tensors = {"b": numpy.ones(2, numpy.float32), "a": numpy.zeros(2, numpy.float32)}
metadata = {f"key {number}": "value" for number in range(count)} or None
print(*{hashlib.sha256(save(tensors, metadata)).hexdigest() for _ in range(8)})
save_file(tensors, path, metadata)
with safe_open(path, "numpy") as opened:
    assert opened.metadata() == metadata, opened.metadata()
PYTHON
"$folder/venv/bin/python" -c 'import numpy, safetensors; print("safetensors", safetensors.__version__, "numpy", numpy.__version__)'
for entries in 0 1 2 6; do
    kinds=$(for _ in 1 2 3 4; do "$folder/venv/bin/python" "$folder/seen.py" $entries "$folder/file"; done | tr ' ' '\n' | sort -u | wc -l)
    echo "$entries metadata entries, 4 processes of 8 saves: $kinds different files"
    case $entries in
        0 | 1) [ "$kinds" -eq 1 ] || { echo "changed: these were always equal"; exit 1; } ;;
        *) [ "$kinds" -gt 1 ] || { echo "changed: the order of metadata is fixed now"; exit 1; } ;;
    esac
done
