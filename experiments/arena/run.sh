#!/usr/bin/env bash
# The arena on the embedded tongues: SEEDS="1 2 3" run.sh. After an interruption it goes on.
# RECIPE has more overrides of the recipe, SCORED of the evaluations, with spaces between, as for a
# slice of few steps:
# SEEDS="1 2" RECIPE='shared.steps=[trainer.max_steps=4,trainer.val_check_interval=4]' \
#   SCORED=data.test.size=10 run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0
source experiments/tools/runs.sh
margin=1 # point of chrF++, stated before any of these systems was scored
out=${RUNS:-runs}/arena
folders=() seeds=(${SEEDS:-1 2 3})
read -ra recipe <<< "${RECIPE:-}"
read -ra scoring <<< "${SCORED:-}"
for seed in "${seeds[@]}"; do
  name=arena_seed$seed
  if ! done_before "$name"; then
    begun=()
    compgen -G "${RUNS:-runs}/$name/*/record.json" > /dev/null && begun=("resume=$(latest "$name")")
    polylect recipe recipe=arena "name=$name" "seed=$seed" ${RUNS:+"runs=$RUNS"} "${begun[@]}" \
      "${recipe[@]}"
  fi
  folders+=("$(latest "$name")")
done
mkdir -p "$out"
python experiments/arena/choose.py "${folders[@]}" > "$out/chosen.tsv"

# The test sets, once for every system and seed, with the trial that was chosen.
while IFS=$'\t' read -r seed system model runs; do
  scored=("seed=$seed" "${scoring[@]}")
  base=(data=tongues_unequal model=local "model.path=$model" "${scored[@]}")
  name=arena_${system}_seed$seed
  case $system in
    full) # the first: so the base is scored as it is, once for each seed
      evaluate "arena_frozen_seed$seed" "${base[@]}"
      evaluate "arena_shots_seed$seed" "${base[@]}" shots=5
      evaluate "arena_memory_seed$seed" "${base[@]}" memory.corpus=train
      evaluate "$name" "run=$runs" "${scored[@]}"
      ;;
    alone) # the adapters of four runs are one library, and their scores one row
      library=$out/${name}_adapters
      mkdir -p "$library"
      tr '\t' '\n' <<< "$runs" | while read -r run; do cp -r "$run"/adapters/* "$library"; done
      evaluate "$name" "${base[@]}" "library=$library"
      ;;
    lora_switch) # LAG trains nothing: it takes these adapters
      evaluate "$name" "run=$runs" "${scored[@]}"
      library=strategy.library=$runs/adapters
      evaluate "arena_lag_seed$seed" "${base[@]}" strategy=lag strategy.k=3 "$library"
      evaluate "arena_lag_uniform_seed$seed" "${base[@]}" strategy=lag strategy.router=uniform \
        "$library"
      ;;
    *) evaluate "$name" "run=$runs" "${scored[@]}" ;;
  esac
done < "$out/chosen.tsv"

# groups SYSTEM…: these systems with their runs, the baseline first.
groups() {
  local system seed runs all=
  for system in "$@"; do
    runs=
    for seed in "${seeds[@]}"; do
      folder=$(latest "arena_${system}_seed$seed")
      runs+="${runs:+,}${folder%/}"
    done
    all+="${all:+,}$system:[$runs]"
  done
  echo "groups={$all}"
}

# verdicts NAME SYSTEM…
verdicts() {
  rm -f "$out/$1.md" "$out/$1.png"
  polylect compare "$(groups "${@:2}")" "margin=$margin" "out=$out/$1.md" "picture=$out/$1.png"
}

verdicts systems lora frozen shots memory full alone lora_switch landermt mix_moe lag
verdicts placebos_of_landermt landermt landermt_random landermt_random_layers
verdicts placebos_of_mix_moe mix_moe mix_moe_random mix_moe_mlp mix_moe_uniform
verdicts placebo_of_lag lag lag_uniform
