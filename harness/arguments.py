"""Command-line arguments: their types, and what was given as words again."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"wants a number from 1, got {number}")
    return number


def add_configuration_options(
    made: argparse.ArgumentParser,
    files: str = "a gin file; repeat to add or override",
    example: str = "IQL.expectile=0.7",
) -> None:
    """The gin files (`gin`) and bindings (`bindings`) of a command; `files` says what the files are for."""
    made.add_argument("--gin", "--gin_file", action="append", default=[], metavar="FILE", help=files)
    made.add_argument(
        "--set",
        "--gin_bindings",
        action="append",
        default=[],
        dest="bindings",
        metavar="BINDING",
        help=f"a binding such as '{example}'; repeatable",
    )


def configuration_words(options: argparse.Namespace) -> list[str]:
    """The gin files (`gin`) and bindings (`bindings`) as they were given, as words of a command line."""
    given = [("--gin", file) for file in options.gin] + [("--set", binding) for binding in options.bindings]
    return [word for pair in given for word in pair]
