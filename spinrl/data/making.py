"""How a dataset is made where it is missing, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from attrs.validators import ge

from spinrl.data.cache import OnDamage, OnWait

Progress = Callable[[int, int], None]


@attrs.frozen(kw_only=True)
class Making:
    """Handed down from who wants a dataset to whatever makes it.

    Attributes:
        processes: worker processes.
        progress: called with (units done, in all) while something is being made.
        on_wait: called with a path when another run is making the same.
        on_damage: told of what is damaged in the cache, which is then made anew; without it that is an error.
    """

    processes: int = attrs.field(default=1, validator=ge(1))
    progress: Progress | None = None
    on_wait: OnWait | None = None
    on_damage: OnDamage | None = None


AS_IT_IS = Making()
