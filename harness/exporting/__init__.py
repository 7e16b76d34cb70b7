"""Finished cells and reference checkpoints, read back for export, and registered models served."""
