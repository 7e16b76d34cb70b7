"""Datasets from outside: published pickles, arrays, Minari."""
