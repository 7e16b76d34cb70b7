"""The library from Python: datasets, training, and trained policies; `import spinrl` has all of their names."""
