#!/usr/bin/env bash
# LANDeRMT and its placebos on the embedded tongues, all runs of one seed: SEED=1 tongues.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0
seed=${SEED:-1}
runs=runs/seed$seed
latest() { ls -d "$runs/$1"/*/ | tail -1; }
neurons() { echo "$(latest "$1")neurons.safetensors"; }
detect() { polylect detect runs="$runs" name="$1" model=local "model.path=$base" layers.k=2 categories.share=0.5 "${@:2}"; }
again() { polylect detect runs="$runs" name="$1" "scores=$(neurons neurons)" layers.k=2 categories.share=0.5 "${@:2}"; }
train() {
  polylect train runs="$runs" name="$1" seed="$seed" model=local "model.path=$base" evaluate_base=false \
    trainer.max_steps=150 trainer.val_check_interval=150 "${@:2}"
}
slices() { train "$1" strategy=landermt "strategy.neurons=$(neurons "$2")" strategy.gate_width=32 "${@:3}"; }

polylect train experiment=tongues_joint runs="$runs" name=joint seed="$seed" trainer.max_steps=60
base="$(latest joint)model"

# 512 of 1,024 neurons in two of four layers; the adapters have as many trained parameters.
detect neurons
again neurons_general categories.rho=0.5
again neurons_specific categories.rho=0.5
again neurons_random categories.rule=random
again neurons_random_layers layers.rule=random

slices landermt neurons
slices literal neurons strategy.literal=true
slices no_gate neurons strategy.gate=none
slices general neurons_general strategy.trained=general strategy.gate=none
slices specific neurons_specific strategy.trained=specific strategy.gate=none
slices random_neurons neurons_random
slices random_layers neurons_random_layers
train full strategy=full optim=full_small
train lora strategy=lora strategy.rank=20
train lora_switch strategy=lora_switch strategy.rank=5

# The loss at step 0: one step at a rate of zero.
still=(trainer.max_steps=1 trainer.val_check_interval=1 optim.optimizer.lr=0 evaluate=false)
slices step0 neurons "${still[@]}"
slices step0_literal neurons strategy.literal=true "${still[@]}"

# One direction alone, on as many tokens of its own.
alone=("data.directions=[en-ta]" trainer.max_steps=38 trainer.val_check_interval=38)
slices alone neurons "${alone[@]}"
train full_alone strategy=full optim=full_small "${alone[@]}"

names=(joint landermt literal no_gate general specific random_neurons random_layers full lora lora_switch step0 step0_literal alone full_alone)
for name in "${names[@]}"; do folders+=("$(latest "$name")"); done
python experiments/analyse.py --out experiments/landermt/results/tongues --name "tongues_{}_seed$seed" \
  --text data=tongues 'data.directions=[en,de,fr,hi,ta]' -- "${folders[@]}"
