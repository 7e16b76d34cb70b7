"""MLflow: one writer with a queue on disk, which outlasts an unreachable store; runs, resuming, reading back."""
