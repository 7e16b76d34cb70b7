"""Where the cells of a grid run: here in turn or side by side, on a Ray cluster, or as Slurm jobs."""
