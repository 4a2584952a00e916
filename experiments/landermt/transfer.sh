#!/usr/bin/env bash
# de-fr through rows that en-de and en-fr have trained, on the embedded tongues: SEED=1 transfer.sh
# After an interruption: polylect recipe recipe=landermt_transfer seed=SEED resume=FOLDER, then
# FOLDER=FOLDER SEED=SEED transfer.sh for the measurements.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
seed=${SEED:-1}
[ -n "${FOLDER:-}" ] || polylect recipe recipe=landermt_transfer "seed=$seed" ${RUNS:+"runs=$RUNS"}
folder=${FOLDER:-$(latest landermt_transfer)}
for name in own random both; do
  python experiments/landermt/transfer.py --direction de-fr --name "${name}_seed$seed" \
    --out experiments/landermt/results/transfer "${folder%/}/$name"
done
