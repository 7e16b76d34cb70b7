"""Batches of transitions from a store: TorchRL's replay buffer over memory-mapped arrays."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict

from spinrl.data.store.store import Store
from spinrl.seeding import torch_generator
from spinrl.specs import ACTION, ALLOWED, NEXT_ALLOWED, NEXT_POLICY_INPUT, OBSERVATION, POLICY_INPUT
from spinrl.tasks.headless import headless

with headless():  # TorchRL imports MuJoCo
    from torchrl.data import ReplayBuffer
    from torchrl.data.replay_buffers import ImmutableDatasetWriter, RandomSampler, Storage


@contextlib.contextmanager
def _without_mujoco() -> Iterator[None]:
    """TorchRL asks whether there is mujoco.mjx, which imports MuJoCo, which fails by a MUJOCO_GL that is for another
    machine: within there is none."""
    hidden = "mujoco.mjx" not in sys.modules
    if hidden:
        sys.modules["mujoco.mjx"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["mujoco.mjx"]


with _without_mujoco():
    from torchrl.data import ReplayBuffer
    from torchrl.data.replay_buffers import ImmutableDatasetWriter, RandomSampler, Storage


class StoreStorage(Storage):
    """A store as TorchRL's storage: what is asked for is gathered, nothing can be written.

    Args:
        store: the dataset.
        device: where to gather. The arrays are copied to a device that is not the CPU.
    """

    def __init__(
        self,
        store: Store,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(max_size=len(store))
        self._gather_on = torch.device(device)
        copied = self._gather_on.type != "cpu"

        def place(array: torch.Tensor) -> torch.Tensor:
            return array.to(self._gather_on, copy=True) if copied else array

        transitions = store.data["transitions"]
        observation = place(store.data["observations", "observation"])  # (R, S)
        rows, size = observation.shape
        # Every observation together with the row after it: one gather gives a transition's both ends.
        self._ends = observation.as_strided((rows - 1, 2, size), (size, size, 1))  # (R-1, 2, S)
        self._row = place(transitions["row"])  # (T,)
        self._action = place(transitions["action"])  # (T, N)
        self._reward = place(transitions["reward"])  # (T,)
        self._terminated = place(transitions["terminated"])  # (T,)
        self._allowed = None if store.allowed is None else place(store.allowed)  # (R, N, K)
        self._features: torch.Tensor | None = None
        self._next_features = False

    def give_along(self, features: torch.Tensor | None, *, following: bool = False) -> None:
        """Give features (R, ...) of the stored observations along from now on, and of the next ones if `following`.

        They are gathered where they lie, normally from a memory map, since they may be larger than a GPU.
        """
        self._features, self._next_features = features, following

    def get(self, index: Any) -> TensorDict:
        """Transitions at the indices (B,), with the keys of `spinrl.specs`."""
        index = torch.as_tensor(index, device=self._gather_on)
        ends = self._ends.index_select(0, self._row.index_select(0, index))  # (B, 2, S)
        observation, following = ends.unbind(1)
        batch = TensorDict(
            {
                OBSERVATION: observation,
                ACTION: self._action.index_select(0, index).long(),
                "next": {
                    "observation": following,
                    "reward": self._reward.index_select(0, index).unsqueeze(-1),
                    "terminated": self._terminated.index_select(0, index).unsqueeze(-1),
                },
            },
            batch_size=index.shape,
        )
        if self._allowed is not None:
            rows = self._row.index_select(0, index)
            batch[ALLOWED] = self._allowed.index_select(0, rows)
            batch[NEXT_ALLOWED] = self._allowed.index_select(0, rows + 1)
        if self._features is not None:
            rows = self._row.index_select(0, index).to(self._features.device)
            batch[POLICY_INPUT] = self._features.index_select(0, rows).to(self._gather_on)
            if self._next_features:
                batch[NEXT_POLICY_INPUT] = self._features.index_select(0, rows + 1).to(self._gather_on)
        return batch

    def actions(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Observations (B, S), actions (B, N) and allowed choices (B, N, K), if the store has them, alone."""
        index = index.to(self._gather_on)
        rows = self._row.index_select(0, index)
        allowed = None if self._allowed is None else self._allowed.index_select(0, rows)
        return self._ends[:, 0].index_select(0, rows), self._action.index_select(0, index).long(), allowed

    def set(self, cursor: int, data: Any, *, set_cursor: bool = True) -> None:
        raise RuntimeError("a store is never written to; write a new one with StoreWriter")

    def __len__(self) -> int:
        return len(self._row)

    def state_dict(self) -> dict[str, Any]:
        return {}  # the data is on the disk

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def _empty(self) -> None:
        raise RuntimeError("a store cannot be emptied; delete its folder")


class ReplayLoader:
    """Uniform batches with replacement from a store, in an order that the seed alone decides.

    Args:
        store: the dataset.
        batch_size: B.
        seed: the experiment's; the loader draws from a child seed of its own.
        device: where batches are gathered; a GPU holds the arrays, a CPU maps them.
    """

    def __init__(
        self,
        store: Store,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch_size = batch_size
        self._generator = torch_generator(seed, "replay")
        self._storage = StoreStorage(store, device)
        self.buffer = ReplayBuffer(
            storage=self._storage,
            sampler=RandomSampler(),
            writer=ImmutableDatasetWriter(),
            collate_fn=_as_it_is,
            batch_size=batch_size,
            generator=self._generator,
        )

    def __len__(self) -> int:
        return len(self._storage)

    def sample(self) -> TensorDict:
        """The next batch: observation (B, S), action (B, N) and, under "next", observation, reward (B, 1), ...

        Of a store with masks also `allowed` (B, N, K), and the same under "next".
        """
        return self.buffer.sample()

    def give_along(self, features: torch.Tensor | None, *, following: bool = False) -> None:
        """From now on give `policy_input` along: the rows of `features` (R, ...) that belong to the observations.

        Args:
            features: of every stored observation, or None for no such key.
            following: also ("next", "policy_input").
        """
        self._storage.give_along(features, following=following)

    def sample_actions(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The observations (B, S), actions (B, N) and allowed choices of the next batch alone, at half the cost."""
        index = torch.randint(len(self), (self.batch_size,), generator=self._generator)
        return self._storage.actions(index)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The random state, from which batches go on exactly."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a random state."""
        self._generator.set_state(state["generator"].cpu())


def _as_it_is(batch: TensorDict) -> TensorDict:
    """The storage gathers whole batches: there is nothing to collate."""
    return batch
