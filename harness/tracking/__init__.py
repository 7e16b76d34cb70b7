"""MLflow: one writer with a queue that survives a store that is away; runs, resuming, reading back."""
