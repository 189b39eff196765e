#!/usr/bin/env bash
# Makes the figures of docs/results.md: HAM10000 all the way, on this machine's own Ray.
#     DERMARAY_DATA=../shared/data benchmarks/ham10000.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
data=${DERMARAY_DATA:-../shared/data}/ham10000
out=${1:-runs/results}

step() {
    echo "+ $*"
    /usr/bin/env time -f '  %e s, %M KiB at most in the driver' "$@"
}

step dermaray prepare "$data" --out "$out/data" --overwrite
step dermaray train --config configs/case-study-balanced.yaml --overwrite data.manifest="$out/data" out="$out/train" \
    scaling.num_workers=2 training.epochs=3 training.global_batch_size=64
cat "$out/train/history.csv"
for split in val test; do
    step dermaray evaluate --model "$out/train" --data "$out/data" --split "$split" --out "$out/$split" --overwrite
done

# The validation images as a zip, then one of them live.
python - "$out" <<'PYTHON'
import sys, zipfile
from pathlib import Path
from dermaray.data.manifest import Manifest

out = Path(sys.argv[1])
uris = Manifest.read(out / "data").rows("val")["uri"].to_pylist()
with zipfile.ZipFile(out / "val.zip", "w") as archive:
    for uri in uris:
        archive.write(uri, Path(uri).name)
(out / "one.txt").write_text(uris[0])
PYTHON
step dermaray score "$out/val.zip" --model "$out/train" --out "$out/scores" --new --csv
cat "$out/scores/summary.json"

dermaray serve --model "$out/train" --port 8123 &
server=$!
trap 'kill -TERM $server; wait $server || true' EXIT
until curl --silent --fail http://127.0.0.1:8123/healthz; do sleep 1; done
echo
step curl --silent --show-error --data-binary @"$(cat "$out/one.txt")" http://127.0.0.1:8123/v1/predict
echo
grep "$(basename "$(cat "$out/one.txt")" .jpg)" "$out/scores/scores.csv"
