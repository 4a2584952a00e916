#!/usr/bin/env bash
# Mix-MoE on the embedded tongues with three seeds: router features, placebos, dense, LoRA-switch.
# Runs that are done are not repeated. SEEDS="1 2", STEPS=100, FEATURES="fft random" make it shorter.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
steps=${STEPS:-150}
short=(evaluate_base=false "trainer.max_steps=$steps" "trainer.val_check_interval=$steps")

evaluate tongues_base data=tongues model=tongues
folders=("$(latest tongues_base)")
for seed in ${SEEDS:-1 2 3}; do
  for feature in ${FEATURES:-fft dct random mlp uniform}; do
    name=tongues_${feature}_seed$seed
    train "${name}_stage1" experiment=mix_moe_stage1 "strategy.features=$feature" "${short[@]}"
    train "$name" experiment=mix_moe_stage2 "strategy.features=$feature" "${short[@]}" \
      "init_from=$(latest "${name}_stage1")"
    folders+=("$(latest "$name")")
  done
  train "tongues_full_seed${seed}_stage1" strategy=full optim=full_small \
    'data.directions=[en,de,fr,hi,ta]' "${short[@]}"
  train "tongues_full_seed$seed" strategy=full optim=full_small "${short[@]}" \
    "init_from=$(latest "tongues_full_seed${seed}_stage1")"
  train "tongues_lora_switch_seed$seed" "${short[@]}"
  folders+=("$(latest "tongues_full_seed$seed")" "$(latest "tongues_lora_switch_seed$seed")")
done
python experiments/tools/transfer.py --out experiments/mix_moe/results/tongues \
  --text data=tongues 'data.directions=[en,de,fr,hi,ta]' -- "${folders[@]}"
