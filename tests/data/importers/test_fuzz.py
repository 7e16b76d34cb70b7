"""Some seconds of the fuzz of all importers, always of the same files; `python -m tests.fuzz` is for longer ones."""

from __future__ import annotations

from tests.fuzz import WRITERS, fuzz


def test_mutated_files_give_a_store_or_one_line():
    counts, findings = fuzz(seconds=20, seed=0, most=250)
    assert not findings, "\n".join(findings)
    assert sum(counts.values()) == 250 or sum(counts.values()) > 20  # a slow machine gets less far
    assert {came for _, came in counts} == {"store", "refused"}
    assert {kind for kind, _ in counts} <= set(WRITERS)
