#!/bin/bash
# Trains on two nodes of eight GPUs, one process a GPU; JAX reads from SLURM who the others are.
#
#   sbatch experiments/launch/slurm.sh --data.train /shared/faces
#
# Two minutes before the time is up SLURM sends SIGTERM: the run saves, exits with 143, is queued
# again and goes on where it stopped. The folder of --out must be one that all nodes see.
#SBATCH --job-name=sphereface
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

srun --kill-on-bad-exit=1 sphereface train \
    --out runs/slurm --model.name spherenet20 --model.dtype bfloat16 \
    --batch-size 1024 --mesh.model 8 --loss.class-block 4096 "$@"
code=$?
if [ "$code" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
