#!/usr/bin/env bash
# Four caption directions on a small base: frozen, lora, lora_switch, full; then the analysis.
# POLYLECT_DATA and POLYLECT_BASE name the folders of the text and of the base model.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k and visual_genome}"
: "${POLYLECT_BASE:?set it to the folder of the base model}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
seed=${SEED:-1}
polylect evaluate name=captions_frozen data=captions model=local model.path="$POLYLECT_BASE" generation.ratio=1.5
polylect train experiment=captions name=captions_lora_switch strategy.alpha=32 seed="$seed"
polylect train experiment=captions name=captions_lora strategy=lora strategy.rank=64 strategy.alpha=32 seed="$seed"
polylect train experiment=captions_full name=captions_full seed="$seed"
latest() { ls -d "runs/$1"/*/ | tail -1; }
python experiments/analyse.py --out experiments/captions/results --text data=captions_mono --matrix 200 -- \
  "$(latest captions_frozen)" "$(latest captions_lora)" "$(latest captions_lora_switch)" "$(latest captions_full)"
