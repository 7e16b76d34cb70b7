"""Command-line arguments: their types, and what was given as words again."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"wants a number from 1, got {number}")
    return number


def configuration_words(options: argparse.Namespace) -> list[str]:
    """The gin files (`gin`) and bindings (`bindings`) as they were given, as words of a command line."""
    given = [("--gin", file) for file in options.gin] + [("--set", binding) for binding in options.bindings]
    return [word for pair in given for word in pair]
