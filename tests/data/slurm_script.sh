#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=8
#SBATCH --error=FOLDER/slurm/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=few_shot_benchmark
#SBATCH --mem=32G
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output=FOLDER/slurm/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --signal=USR2@90
#SBATCH --time=90
#SBATCH --wckey=submitit

# setup
export OMP_NUM_THREADS=8 SRUN_CPUS_PER_TASK=8

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output FOLDER/slurm/%A_%a_%t_log.out --error FOLDER/slurm/%A_%a_%t_log.err PYTHON -u -m submitit.core._submit FOLDER/slurm
