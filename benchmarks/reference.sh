#!/usr/bin/env bash
# Makes the reference model and its figures in docs/results.md, on this machine's own Ray.
#     DERMARAY_DATA=../shared/data benchmarks/reference.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
# Without effect where TensorFlow takes oneDNN's kernels by itself.
export TF_ENABLE_ONEDNN_OPTS=1

dermaray prepare "${DERMARAY_DATA:-../shared/data}/ham10000" --out runs/ham10000 --overwrite
dermaray train --config configs/reference.yaml --overwrite
dermaray evaluate --model runs/reference --data runs/ham10000 --out runs/report --card --overwrite
python -m benchmarks.out_of_distribution --model runs/reference --data runs/ham10000
