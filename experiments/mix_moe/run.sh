#!/usr/bin/env bash
# Mix-MoE on the captions: router features and their placebos, dense fine-tuning, LoRA.
# POLYLECT_DATA and POLYLECT_BASE name the folders of the text and of the base model. Runs that are
# done are not repeated. FEATURES="fft dct" runs these only; SEED=2 names its runs …_seed2.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k, visual_genome, mono_commonvoice}"
: "${POLYLECT_BASE:?set it to the folder of the base model}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
seed=${SEED:-1} steps1=${STEPS1:-60} steps2=${STEPS2:-150}
features=${FEATURES-fft dct random mlp uniform}
suffix=$([[ $seed == 1 ]] || echo "_seed$seed")
source experiments/tools/runs.sh
# Experts alone do not teach a model to look at the source: all runs begin from the short joint
# training that experiments/landermt begins from, too.
train landermt_joint experiment=captions_full trainer.max_steps=400 trainer.val_check_interval=400
POLYLECT_BASE=$(latest landermt_joint)model
stage1=("trainer.max_steps=$steps1" "trainer.val_check_interval=$steps1")
stage2=("trainer.max_steps=$steps2" "trainer.val_check_interval=$steps2")

evaluate mix_moe_base data=captions_short model=local "model.path=$POLYLECT_BASE" generation.ratio=1.5
runs=(mix_moe_base)
for feature in $features; do
  name=mix_moe_$feature$suffix
  train "${name}_stage1" experiment=captions_moe_stage1 "strategy.features=$feature" "${stage1[@]}"
  train "$name" experiment=captions_moe_stage2 "strategy.features=$feature" "${stage2[@]}" \
    optim.optimizer.lr=2e-3 "init_from=$(latest "${name}_stage1")"
  runs+=("$name")
done
train "mix_moe_full${suffix}_stage1" experiment=captions_mono "${stage1[@]}"
train "mix_moe_full$suffix" experiment=captions_stage2 strategy=full "${stage2[@]}" \
  optim.optimizer.lr=1e-3 "init_from=$(latest "mix_moe_full${suffix}_stage1")"
# As many trained parameters as the MT experts and their routers have.
train "mix_moe_lora_switch$suffix" experiment=captions_stage2 strategy.rank=29 strategy.alpha=32 \
  "${stage2[@]}" optim.optimizer.lr=5e-3
train "mix_moe_lora$suffix" experiment=captions_stage2 strategy=lora strategy.rank=116 strategy.alpha=32 \
  "${stage2[@]}" optim.optimizer.lr=5e-3
runs+=("mix_moe_full$suffix" "mix_moe_lora_switch$suffix" "mix_moe_lora$suffix")

for run in "${runs[@]}"; do folders+=("$(latest "$run")"); done
python experiments/tools/transfer.py --out experiments/mix_moe/results --text data=captions_mono -- "${folders[@]}"
