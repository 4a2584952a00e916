#!/usr/bin/env bash
# What can be read off adapters that began with A as PEFT draws it, and with a small one: an adapter
# for each language of the embedded tongues. With CAPTIONS=RUN, POLYLECT_DATA and POLYLECT_BASE also
# off the adapters of that lora_switch run of experiments/captions.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
seed=${SEED:-1} out=experiments/lag/results/readable
measure() { python experiments/lag/readable.py --library "$2" --out "$out/$1.json" "${@:3}"; }
languages='data.directions=[en,de,fr,hi,ta]'
for scale in 1 0.1 0.01; do
  name=lag_languages_$scale
  train "$name" "$languages" strategy.rank=6 strategy.alpha=12 "strategy.init_scale=$scale" \
    evaluate=false evaluate_base=false trainer.max_steps=120 trainer.val_check_interval=120
  measure "languages_$scale" "$(latest "$name")adapters" model=tongues data=tongues "$languages"
done
if [ -n "${CAPTIONS:-}" ]; then
  measure captions_1 "${CAPTIONS%/}/adapters" model=local "model.path=$POLYLECT_BASE" data=captions_short
fi
