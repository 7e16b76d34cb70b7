"""Options for what files of columns do not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from spinrl.data.importers.choices import Choices
from spinrl.data.importers.ends import Kind
from spinrl.data.importers.values import MISSING, Missing
from spinrl.data.store.metadata import StoreError


def _several(value: int | Sequence[int]) -> Sequence[int]:
    return (value,) if isinstance(value, int) else tuple(value)


@attrs.frozen(kw_only=True)
class ArrayOptions:
    """Options for what files of columns do not say.

    Attributes:
        choices: number of choices of each sub-action, or one number for all; "observed" takes the largest value in
            the file as the last choice.
        one_hot: number of choices of each sub-action, for actions that are one-hot vectors; replaces `choices`.
        action_offset: number of each sub-action's first choice in the file, or one number for all.
        ends: kind of the ends of episodes that the file does not explain: terminal or timeout.
        episode_length: steps after which an episode ends at the latest.
        step_column: column that rises within an episode; rows are sorted by it.
        missing: treatment of missing numbers in observations: "mean" and "zero" fill them in, "drop" leaves the row
            out and cuts the episode there, None refuses the file.
        columns: column names by meaning (see `spinrl.data.importers.meanings.ALIASES`) in place of the usual names:
            a list, or text as `spinrl.data.importers.meanings.select` reads it; an empty one ignores that meaning.
    """

    choices: Choices = None
    one_hot: Sequence[int] = ()
    action_offset: Sequence[int] = attrs.field(default=(0,), converter=_several)
    ends: Kind | None = None
    episode_length: int | None = None
    step_column: str | None = None
    missing: Missing | None = None
    columns: Mapping[str, str | Sequence[str]] = attrs.field(factory=dict)

    def check(self) -> None:
        """Refuse contradictory options.

        Raises:
            StoreError: if options contradict each other; the message names them.
        """
        if self.one_hot and self.choices is not None:
            raise StoreError("--one-hot says how many choices there are; leave out --choices")
        if self.one_hot and any(self.action_offset):
            raise StoreError("choices of one-hot vectors count from 0; leave out --action-offset")
        if any(each < 1 for each in self.one_hot):
            raise StoreError(f"--one-hot: expected at least 1 choice each, got {min(self.one_hot)}")
        if any(abs(each) >= 2**31 for each in self.action_offset):
            raise StoreError(f"--action-offset: expected the number of the first choice, got {self.action_offset[0]}")
        if self.missing not in (None, *MISSING):
            raise StoreError(f"--missing: expected {', '.join(MISSING)}, got {self.missing}")
