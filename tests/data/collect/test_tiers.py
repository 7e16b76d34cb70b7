from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinrl.data import Source, Tier

TIERS = Path(__file__).parents[3] / "gin" / "tiers.gin"


@given(
    shares=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
    transitions=st.integers(1000, 10**7),
)
def test_the_parts_add_up_and_follow_the_shares(shares: list[float], transitions: int) -> None:
    tier = Tier(sources=[Source(behavior="random", share=share) for share in shares])
    parts = tier.split(transitions)
    assert [source for source, _ in parts] == list(tier.sources)
    assert sum(count for _, count in parts) == transitions
    for share, (_, count) in zip(shares, parts, strict=True):
        assert abs(count - transitions * share / sum(shares)) <= 1


def test_a_tier_may_have_a_size_of_its_own() -> None:
    tier = Tier(sources=[Source(behavior="medium"), Source(behavior="expert")], transitions=30)
    assert [count for _, count in tier.split(1000)] == [15, 15]


def test_too_few_transitions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 transitions are too few"):
        Tier(sources=[Source(behavior="random")] * 3).split(2)


@pytest.mark.parametrize(
    "fields",
    [{"behavior": "best"}, {"share": 0.0}, {"share": -1.0}, {"epsilon": 1.1}, {"epsilon": -0.1}, {"hold": 0}],
)
def test_sources_are_checked(fields: dict) -> None:
    with pytest.raises(ValueError):
        Source(**{"behavior": "expert"} | fields)


def test_a_tier_needs_sources() -> None:
    with pytest.raises(ValueError):
        Tier(sources=[])
    with pytest.raises(TypeError):
        Tier(sources=["expert"])


def test_the_recipes_name_the_four_tiers() -> None:
    text = TIERS.read_text()
    for name in ("medium", "expert", "medium-expert", "random-medium-expert"):
        assert f"'{name}': @{name.replace('-', '_')}/Tier()," in text
