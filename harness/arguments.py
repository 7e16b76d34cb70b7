"""Types of command-line arguments."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"wants a number from 1, got {number}")
    return number
