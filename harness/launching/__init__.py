"""Cells on other machines: what travels between them and the one process that observes."""
