"""What is known before anything runs: checks, and the cost in time, memory and disk."""
