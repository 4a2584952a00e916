#!/usr/bin/env bash
# LANDeRMT and its placebos on the captions, from a base that translates a little.
# POLYLECT_DATA is the folder of the text, POLYLECT_BASE the model folder of a joint training
# (runs/captions_full/TIME/model of experiments/captions).
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k and visual_genome}"
: "${POLYLECT_BASE:?set it to the model folder of a joint training}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
seed=${SEED:-1} steps=${STEPS:-120}
short=("trainer.max_steps=$steps" "trainer.val_check_interval=$steps" "seed=$seed"
  'data.test={"*": {kind: aligned, path: "multi30k/test_2016_flickr.{lang}.gz", stop: 200},
    en-hi: {kind: aligned, path: "visual_genome/test.{lang}.gz", stop: 200}}')
latest() { ls -d "runs/$1"/*/ | tail -1; }
neurons() { echo "$(latest "$1")neurons.safetensors"; }
train() { polylect train experiment=captions_landermt "name=$1" "strategy.neurons=$(neurons "$2")" "${short[@]}" "${@:3}"; }

# 599 of 768 neurons in four of six layers: as many trained parameters as the adapters have.
polylect detect name=neurons data=captions model=local "model.path=$POLYLECT_BASE" categories.share=0.78
scores="scores=$(neurons neurons)"
polylect detect name=neurons_general "$scores" categories.rho=0.78
polylect detect name=neurons_specific "$scores" categories.rho=0.22
polylect detect name=neurons_random "$scores" categories.share=0.78 categories.rule=random
polylect detect name=neurons_random_layers "$scores" categories.share=0.78 layers.rule=random

polylect evaluate name=landermt_base data=captions model=local "model.path=$POLYLECT_BASE" generation.ratio=1.5 limit=200
train landermt neurons
train landermt_no_gate neurons strategy.gate=none
train landermt_general neurons_general strategy.trained=general strategy.gate=none
train landermt_specific neurons_specific strategy.trained=specific strategy.gate=none
train landermt_random_neurons neurons_random
train landermt_random_layers neurons_random_layers
polylect train experiment=captions_full name=landermt_full optim.optimizer.lr=1e-3 "${short[@]}"
polylect train experiment=captions name=landermt_lora strategy=lora strategy.rank=64 strategy.alpha=32 "${short[@]}"
polylect train experiment=captions name=landermt_lora_switch strategy.alpha=32 "${short[@]}"
# One direction alone, on as many tokens of its own.
alone=("data.directions=[en-cs]" "trainer.max_steps=$((steps / 4))" "trainer.val_check_interval=$((steps / 4))")
train landermt_alone neurons "${alone[@]}"
polylect train experiment=captions_full name=landermt_full_alone optim.optimizer.lr=1e-3 "${short[@]}" "${alone[@]}"

for run in landermt landermt_{no_gate,general,specific,random_neurons,random_layers,full,lora,lora_switch,alone,full_alone}; do
  folders+=("$(latest "$run")")
done
python experiments/captions/analyse.py --out experiments/landermt/results --sentences 100 \
  "$(latest landermt_base)" "${folders[@]}"
