#!/usr/bin/env bash
# Adapters of four domains and up to four directions in one library, and every router over them.
# POLYLECT_DATA is the folder of the text, POLYLECT_BASE that of the base model. STEPS (250) and
# SEED (1) are those of the trainings, LIMIT (60) sentences of each test set are translated.
# CAPTIONS=RUN takes the caption adapters of that lora_switch run instead of training them, and the
# other domains go on from them, so that a few steps are enough for adapters that translate.
# LIBRARY=FOLDER takes a library that an earlier call has made, with FOLDER_captions beside it.
# OUT is the folder of the records.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k, visual_genome, tatoeba, software_l10n and bible}"
: "${POLYLECT_BASE:?set it to the folder of the base model}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
steps=${STEPS:-250} seed=${SEED:-1} limit=${LIMIT:-60} runs=${RUNS:-runs} out=${OUT:-experiments/lag/results}
library=${LIBRARY:-$runs/lag_library/$(date +%Y-%m-%d_%H-%M-%S)}
source experiments/tools/runs.sh
put() {  # the adapters of a folder, under the domain's name
  for adapter in "$2"/*/; do cp -r "$adapter" "$library/$1_$(basename "$adapter")"; done
}

if [ -z "${LIBRARY:-}" ]; then
  mkdir -p "$library" "${library}_captions"
  for domain in ${DOMAINS:-captions tatoeba software_l10n bible}; do
    if [ "$domain" = captions ] && [ -n "${CAPTIONS:-}" ]; then
      put captions "${CAPTIONS%/}/adapters"
      continue
    fi
    polylect train experiment=lag "data=$domain" "name=lag_$domain" "runs=$runs" "seed=$seed" \
      "trainer.max_steps=$steps" "trainer.val_check_interval=$steps" ${CAPTIONS:+"init_from=$CAPTIONS"}
    put "$domain" "$(latest "lag_$domain")adapters"
  done
  # The captions alone: what do the other domains' adapters disturb?
  for adapter in "$library"/captions_*/; do
    ln -s "$(realpath "$adapter")" "${library}_captions/$(basename "$adapter")"
  done
fi
polylect library "path=$library" action=compare "out=$library/similarity.json"
analyse() { python experiments/lag/analyse.py --limit "$limit" --base "$POLYLECT_BASE" "$@"; }
analyse --library "$library" --out "$out"
analyse --library "${library}_captions" --out "$out/captions_alone" \
  --systems oracle uniform arrow_4 lag_3 spectr_proj lag_5_model spectr_model
