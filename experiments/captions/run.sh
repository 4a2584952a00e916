#!/usr/bin/env bash
# Four caption directions on a small base: frozen, lora, lora_switch, full; then the analysis.
# POLYLECT_DATA and POLYLECT_BASE name the folders of the text and of the base model. After an
# interruption: polylect recipe recipe=captions_strategies seed=SEED resume=FOLDER, then
# FOLDER=FOLDER run.sh for the analysis.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k and visual_genome}"
: "${POLYLECT_BASE:?set it to the folder of the base model}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
[ -n "${FOLDER:-}" ] || polylect recipe recipe=captions_strategies "seed=${SEED:-1}" ${RUNS:+"runs=$RUNS"}
folder=${FOLDER:-$(latest captions_strategies)}
for name in frozen lora lora_switch full; do
  python experiments/tools/transfer.py --out experiments/captions/results --name "captions_$name" \
    --text data=captions_mono --matrix 200 -- "${folder%/}/$name"
done
