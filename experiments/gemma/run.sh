#!/usr/bin/env bash
# Six directions on a trimmed Gemma 3 270M: frozen with and without examples, lora_switch, lora, full;
# then the analysis. POLYLECT_DATA and POLYLECT_BASE name the folders of the text and of the base
# model, which README.md says how to make. After an interruption the finished stages are kept:
# polylect recipe recipe=gemma seed=SEED resume=FOLDER, then FOLDER=FOLDER run.sh for the analysis.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k, visual_genome, nlpc_gov, ntrex}"
: "${POLYLECT_BASE:?set it to the folder of the trimmed base}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
[ -n "${FOLDER:-}" ] || polylect recipe recipe=gemma "seed=${SEED:-1}" ${RUNS:+"runs=$RUNS"}
folder=${FOLDER:-$(latest gemma)}
for name in frozen frozen_shots frozen_memory lora_switch contrastive lora full; do
  python experiments/tools/transfer.py --out experiments/gemma/results --name "gemma_$name" \
    --text data=news_mono --matrix 100 -- "${folder%/}/$name"
done
data=(model=local "model.path=$POLYLECT_BASE" data=captions_indic generation.ratio=2.5)
polylect library "path=${folder%/}/lora_switch/adapters" action=inputs "${data[@]:0:3}"
for name in lora_switch contrastive; do
  python experiments/routable/measure.py --library "${folder%/}/$name/adapters" --limit "${LIMIT:-25}" \
    --out "experiments/gemma/results/routers/${name}_seed${SEED:-1}.json" "${data[@]}"
done
