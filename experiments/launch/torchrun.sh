#!/usr/bin/env bash
# The same polylect program in a process per GPU, on one machine or several. On each of them:
#
#   PROCESSES=8 experiments/launch/torchrun.sh train trainer=large strategy=lora_switch …
#   PROCESSES=8 NODES=2 HOST=first-machine experiments/launch/torchrun.sh train trainer=large …
#   PROCESSES=2 experiments/launch/torchrun.sh translate run=RUN input=in.txt output=out.txt …
set -euo pipefail

program=$1
shift
processes=${PROCESSES:?is how many a machine has}
nodes=${NODES:-1}
of_training=()
if [[ $program == train ]]; then
    of_training=("trainer.devices=$processes" "trainer.num_nodes=$nodes")
fi
meeting=(--standalone)
if ((nodes > 1)); then
    endpoint=${HOST:?is the first machine}:${PORT:-29500}
    meeting=(--rdzv-backend c10d --rdzv-id "${JOB:-polylect}" --rdzv-endpoint "$endpoint")
fi
exec torchrun --nnodes "$nodes" --nproc-per-node "$processes" "${meeting[@]}" \
    -m polylect.cli "$program" "$@" "${of_training[@]}"
