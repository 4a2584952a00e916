#!/usr/bin/env bash
# LANDeRMT and its placebos on the captions, from a short joint training of POLYLECT_BASE.
# POLYLECT_DATA is the folder of the text. Runs that are done are not repeated.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${POLYLECT_DATA:?set it to the folder that holds multi30k and visual_genome}"
: "${POLYLECT_BASE:?set it to a base model folder}"
export POLYLECT_DATA POLYLECT_BASE GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
seed=${SEED:-1}
neurons() { echo "$(latest "$1")neurons.safetensors"; }
run() { train "$1" experiment=captions_continued "${@:2}"; }
detect() { done_before "$1" || polylect detect "name=$1" ${RUNS:+"runs=$RUNS"} "${@:2}"; }
slices() {
  run "$1" strategy=landermt "strategy.neurons=$(neurons "$2")" strategy.gate_width=32 "${@:3}"
}

train landermt_joint experiment=captions_full trainer.max_steps=400 trainer.val_check_interval=400
POLYLECT_BASE=$(latest landermt_joint)model

# 599 of 768 neurons in four of six layers: as many trained parameters as the adapters have.
detect neurons data=captions model=local "model.path=$POLYLECT_BASE" categories.share=0.78 categories.rho=0.7
scores="scores=$(neurons neurons)"
detect neurons_general "$scores" categories.rho=0.78
detect neurons_specific "$scores" categories.rho=0.22
detect neurons_random "$scores" categories.share=0.78 categories.rule=random categories.rho=0.7
detect neurons_random_layers "$scores" categories.share=0.78 layers.rule=random categories.rho=0.7

# The loss at step 0: one step at a rate of zero.
still=(trainer.max_steps=1 trainer.val_check_interval=1 optim.optimizer.lr=0 evaluate=false)
slices landermt_step0 neurons "${still[@]}"
slices landermt_step0_literal neurons strategy.literal=true "${still[@]}"

slices landermt neurons
slices landermt_random_neurons neurons_random
run landermt_full strategy=full optim.optimizer.lr=1e-3
run landermt_lora_switch strategy.alpha=32 optim.optimizer.lr=5e-3
slices landermt_no_gate neurons strategy.gate=none
# One direction alone, on as many tokens of its own.
alone=("data.directions=[en-cs]" trainer.max_steps=62 trainer.val_check_interval=62)
slices landermt_alone neurons "${alone[@]}"
run landermt_full_alone strategy=full optim.optimizer.lr=1e-3 "${alone[@]}"
slices landermt_random_layers neurons_random_layers
slices landermt_general neurons_general strategy.trained=general strategy.gate=none
slices landermt_specific neurons_specific strategy.trained=specific strategy.gate=none
run landermt_lora strategy=lora strategy.rank=64 strategy.alpha=32 optim.optimizer.lr=5e-3
names=(landermt landermt_{joint,step0,step0_literal,random_neurons,full,lora_switch,no_gate,random_layers,general,specific,lora,alone,full_alone})
for name in "${names[@]}"; do folders+=("$(latest "$name")"); done
python experiments/tools/transfer.py --out experiments/landermt/results --text data=captions_mono -- "${folders[@]}"
