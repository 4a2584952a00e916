#!/usr/bin/env bash
# LANDeRMT and its placebos on the embedded tongues, all runs of one seed: SEED=1 tongues.sh
# After an interruption: polylect recipe recipe=landermt_tongues seed=SEED resume=FOLDER, then
# FOLDER=FOLDER SEED=SEED tongues.sh for the measurements.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
seed=${SEED:-1}
[ -n "${FOLDER:-}" ] || polylect recipe recipe=landermt_tongues "seed=$seed" ${RUNS:+"runs=$RUNS"}
folder=${FOLDER:-$(latest landermt_tongues)}
for name in joint landermt literal no_gate general specific random_neurons random_layers full lora \
  lora_switch step0 step0_literal alone full_alone; do
  python experiments/tools/transfer.py --out experiments/landermt/results/tongues \
    --name "tongues_${name}_seed$seed" --text data=tongues 'data.directions=[en,de,fr,hi,ta]' \
    -- "${folder%/}/$name"
done
