#!/usr/bin/env bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=SIGTERM@120
# The same polylect program in a process per GPU; SLURM says which. All machines must see the folder
# of runs. Two minutes before its time is over a training saves where it is, for resume=RUN.
#
#   sbatch experiments/launch/slurm.sh train trainer=large strategy=lora_switch …
#   sbatch --nodes=1 --ntasks-per-node=4 experiments/launch/slurm.sh evaluate run=RUN …
set -euo pipefail

program=$1
shift
of_training=()
if [[ $program == train ]]; then
    of_training=("trainer.devices=$SLURM_NTASKS_PER_NODE" "trainer.num_nodes=$SLURM_NNODES")
fi
# One process that fails ends the others, which would wait for it.
exec srun --kill-on-bad-exit=1 polylect "$program" "$@" "${of_training[@]}"
