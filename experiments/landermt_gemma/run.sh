#!/usr/bin/env bash
# LANDeRMT as published, repaired and as printed on a trimmed Gemma 3 270M, with placebos, ablations and
# studies: SEED=1 run.sh; SEED=2 and 3 run the main table alone. POLYLECT_DATA and POLYLECT_BASE name the
# folders of the text and of the base. After an interruption: polylect recipe recipe=NAME seed=SEED
# resume=FOLDER, then FOLDER=FOLDER SEED=SEED run.sh for the measurements. "$@" goes to the recipe.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k, visual_genome, mono_commonvoice, ntrex}"
: "${POLYLECT_BASE:?set it to the folder of the trimmed base}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
seed=${SEED:-1} out=experiments/landermt_gemma/results
name=landermt_gemma
[ "$seed" = 1 ] || name=landermt_gemma_seeds
[ -n "${FOLDER:-}" ] || polylect recipe "recipe=$name" "seed=$seed" ${RUNS:+"runs=$RUNS"} "$@"
folder=${FOLDER:-$(latest "$name")}
for run in "${folder%/}"/*/; do
  stage=$(basename "$run")
  [ -d "$run/checkpoints" ] || continue
  case $stage in alone_*) continue ;; esac
  python experiments/tools/transfer.py --out "$out" --name "${stage}_seed$seed" \
    --text data=news_mono 'data.directions=[en,de,fr,cs,hi,es,pt]' -- "$run"
done
if [ "$seed" = 1 ]; then
  python experiments/landermt_gemma/matrix.py --out "$out/matrix/fixed.json" "${folder%/}"/alone_*
  python experiments/landermt_gemma/studies.py --results "$out" --out "${folder%/}"
fi
