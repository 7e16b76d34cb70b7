"""Batches of transitions from a store: TorchRL's replay buffer over memory-mapped arrays."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict

from spinrl.checkpoint import CheckpointError
from spinrl.data.placing import fits, place
from spinrl.data.store.store import Store
from spinrl.seeding import torch_generator
from spinrl.specs import (
    ACTION,
    ALLOWED,
    NEXT_ALLOWED,
    NEXT_DONE,
    NEXT_POLICY_INPUT,
    NEXT_TERMINATED,
    NEXT_TRUNCATED,
    OBSERVATION,
    POLICY_INPUT,
)


@contextlib.contextmanager
def _without_mujoco() -> Iterator[None]:
    """Hide mujoco.mjx from TorchRL, which would import MuJoCo, which fails if MUJOCO_GL does not fit the machine."""
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
    """A store as a read-only storage of TorchRL.

    Args:
        store: dataset.
        device: device on which batches are gathered; the arrays are copied to a GPU, and mapped on the CPU.
        ends: add to batches where episodes end, which no training of ours asks for.
    """

    def __init__(self, store: Store, device: torch.device | str = "cpu", *, ends: bool = False) -> None:
        super().__init__(max_size=len(store))
        self.device = torch.device(device)  # where TorchRL draws indices too

        def placed(group: str, field: str) -> torch.Tensor:
            return place(store.data[group, field], self.device, f"{store.fingerprint} {group} {field}")

        observation = placed("observations", "observation")  # (R, S)
        rows, size = observation.shape
        # Each observation with the row after it, so that one gather gives both ends of a transition.
        self._ends = observation.as_strided((rows - 1, 2, size), (size, size, 1))  # (R-1, 2, S)
        self._row = placed("transitions", "row")  # (T,)
        self._action = placed("transitions", "action")  # (T, N)
        self._reward = placed("transitions", "reward")  # (T,)
        self._terminated = placed("transitions", "terminated")  # (T,)
        self._truncated = placed("transitions", "truncated") if ends else None  # (T,)
        self._allowed = None if store.allowed is None else placed("observations", "allowed")  # (R, N, K)
        self._features: torch.Tensor | None = None
        self._next_features = False

    def attach_features(self, features: torch.Tensor | None, *, following: bool = False) -> None:
        """Add features (R, ...) of the stored observations to batches, and those of next observations if `following`.

        They are gathered on their own device, which is a memory map where they are too large for a GPU.
        """
        self._features, self._next_features = features, following

    @property
    def gathers_there(self) -> bool:
        """Whether all that a batch is gathered from is on its device."""
        return self._features is None or self._features.device.type == self.device.type

    def get(self, index: Any) -> TensorDict:
        """Transitions at the indices (B,), with the keys of `spinrl.specs`."""
        index = torch.as_tensor(index, device=self.device)
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
        if self._truncated is not None:
            batch[NEXT_TRUNCATED] = self._truncated.index_select(0, index).unsqueeze(-1)
            batch[NEXT_DONE] = batch[NEXT_TERMINATED] | batch[NEXT_TRUNCATED]
        if self._allowed is not None:
            rows = self._row.index_select(0, index)
            batch[ALLOWED] = self._allowed.index_select(0, rows)
            batch[NEXT_ALLOWED] = self._allowed.index_select(0, rows + 1)
        if self._features is not None:
            rows = self._row.index_select(0, index).to(self._features.device)
            batch[POLICY_INPUT] = self._features.index_select(0, rows).to(self.device)
            if self._next_features:
                batch[NEXT_POLICY_INPUT] = self._features.index_select(0, rows + 1).to(self.device)
        return batch

    def actions(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Observations (B, S), actions (B, N) and allowed choices (B, N, K), if the store has them, alone."""
        index = index.to(self.device)
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
    """Uniform batches with replacement from a store; their order depends on the seed alone.

    Args:
        store: dataset.
        batch_size: B.
        seed: seed of the experiment, from which the loader derives its own.
        device: device on which batches are drawn and gathered; the arrays are copied to a GPU, and mapped on the CPU.
        ends: add ("next", "truncated") and ("next", "done") to batches.

    Attributes:
        generator: of the device, that batches are drawn from.
    """

    def __init__(
        self,
        store: Store,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        ends: bool = False,
    ) -> None:
        self.batch_size = batch_size
        self.generator = torch_generator(seed, "replay", device=device)
        self._storage = StoreStorage(store, device, ends=ends)
        self.buffer = ReplayBuffer(
            storage=self._storage,
            sampler=RandomSampler(),
            writer=ImmutableDatasetWriter(),
            collate_fn=_uncollated,
            batch_size=batch_size,
            generator=self.generator,
        )

    def __len__(self) -> int:
        return len(self._storage)

    def sample(self) -> TensorDict:
        """The next batch: observation (B, S), action (B, N) and, under "next", observation, reward (B, 1), ...

        Of a store with masks also `allowed` (B, N, K), and the same under "next".
        """
        return self.buffer.sample()

    def gather(self, index: torch.Tensor) -> TensorDict:
        """The batch of the transitions at the indices (B,)."""
        return self._storage.get(index)

    def attach_features(self, features: torch.Tensor | None, *, following: bool = False, name: str = "") -> None:
        """Add the key `policy_input` to batches: the rows of `features` (R, ...) that belong to the observations.

        Args:
            features: features of every stored observation; None removes the key.
            following: whether to add ("next", "policy_input") too.
            name: what other loaders of this process know the same features by; under it they are copied to a GPU once,
                if they fit there.
        """
        if features is not None and name and fits(features, self._storage.device, name):
            features = place(features, self._storage.device, name)
        self._storage.attach_features(features, following=following)

    @property
    def gathers_there(self) -> bool:
        """Whether a batch is drawn and gathered on its device alone: not where features are too large for it."""
        return self._storage.gathers_there

    def sample_actions(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The observations (B, S), actions (B, N) and allowed choices of the next batch alone, at half the cost."""
        index = self.draw(self.batch_size, self.generator)
        return self._storage.actions(index)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Indices of transitions (count,), uniform and with replacement, where the generator is."""
        return torch.randint(len(self), (count,), generator=generator, device=generator.device)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The random state, from which the sequence of batches can be continued exactly."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a random state.

        Raises:
            CheckpointError: when it is of another kind of device.
        """
        try:
            self.generator.set_state(state["generator"].cpu())
        except RuntimeError as error:
            raise CheckpointError("its batches were drawn on another kind of device") from error


def _uncollated(batch: TensorDict) -> TensorDict:
    """The storage gathers whole batches: there is nothing to collate."""
    return batch
