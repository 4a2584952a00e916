#!/usr/bin/env bash
# LANDeRMT and its placebos on the captions, from a base that translates a little.
# POLYLECT_DATA is the folder of the text, POLYLECT_BASE the model folder of a joint training
# (runs/captions_full/TIME/model of experiments/captions).
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k and visual_genome}"
: "${POLYLECT_BASE:?set it to the model folder of a joint training}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
short=(experiment=captions_continued "seed=${SEED:-1}")
latest() { ls -d "runs/$1"/*/ | tail -1; }
neurons() { echo "$(latest "$1")neurons.safetensors"; }
train() {
  polylect train "${short[@]}" "name=$1" strategy=landermt "strategy.neurons=$(neurons "$2")" \
    strategy.gate_width=32 "${@:3}"
}

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
polylect train "${short[@]}" name=landermt_full strategy=full
polylect train "${short[@]}" name=landermt_lora strategy=lora strategy.rank=64 strategy.alpha=32 optim.optimizer.lr=5e-3
polylect train "${short[@]}" name=landermt_lora_switch strategy.alpha=32 optim.optimizer.lr=5e-3
# One direction alone, on as many tokens of its own.
alone=("data.directions=[en-cs]" trainer.max_steps=30 trainer.val_check_interval=30)
train landermt_alone neurons "${alone[@]}"
polylect train "${short[@]}" name=landermt_full_alone strategy=full "${alone[@]}"

for run in landermt landermt_{no_gate,general,specific,random_neurons,random_layers,full,lora,lora_switch,alone,full_alone}; do
  folders+=("$(latest "$run")")
done
python experiments/captions/analyse.py --out experiments/landermt/results --sentences 60 \
  "$(latest landermt_base)" "${folders[@]}"
