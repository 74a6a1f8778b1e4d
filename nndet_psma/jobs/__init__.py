"""Trainings as a graph of jobs: folds, steps, sweeps, consolidation, on this machine or a SLURM cluster."""
