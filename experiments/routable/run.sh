#!/usr/bin/env bash
# Adapters that began in different ways, and every router over each: SEED=1 run.sh. LIMIT (25) is how
# many sentences of each test set are translated.
# After an interruption: polylect recipe recipe=routable seed=SEED resume=FOLDER, then
# FOLDER=FOLDER SEED=SEED run.sh for the measurements.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
seed=${SEED:-1} out=experiments/routable/results/tongues
[ -n "${FOLDER:-}" ] || polylect recipe recipe=routable "seed=$seed" ${RUNS:+"runs=$RUNS"}
folder=${FOLDER:-$(latest routable)}
for name in kaiming kaiming_small kaiming_frozen data data_frozen data_plus contrastive \
  contrastive_frozen contrastive_plus begin_kaiming begin_data begin_contrastive; do
  library=${folder%/}/$name/adapters
  case $name in
    *kaiming*) polylect library "path=$library" action=inputs model=tongues data=tongues ;;
  esac
  case $name in
    begin_*) routers=(--routers) ;; # after one step nothing is worth translating
    *) routers=() ;;
  esac
  python experiments/routable/measure.py --library "$library" --limit "${LIMIT:-25}" \
    --out "$out/${name}_seed$seed.json" model=tongues data=tongues "${routers[@]}"
done
