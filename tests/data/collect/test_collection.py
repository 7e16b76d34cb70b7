from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

import spinrl.data.collect.processes as collection_module
import spinrl.data.collect.tiers as build_module
from spinrl.behaviors import Behavior, BehaviorError, DecoupledQNetwork, load_behavior
from spinrl.data import (
    BuildOptions,
    CollectionError,
    Episode,
    Rollout,
    Source,
    Store,
    StoreError,
    StoreWriter,
    Tier,
    cached_transitions,
    collect_episodes,
    roll_out,
    source_store,
    tier_store,
)
from spinrl.data.collect.partial import KeptEpisodes
from spinrl.data.collect.rollout import exploration
from spinrl.tasks import EPISODE_STEPS, BatchedEnvironment, get_task
from tests.data.store_samples import random_episode

TASK, BINS = "finger-spin", 3
RANDOM = Rollout(task=TASK, bins=BINS, behavior="random", behavior_fingerprint="random", epsilon=1.0, hold=1, seed=7)
GREEDY = attrs.evolve(RANDOM, behavior="expert", behavior_fingerprint="net", epsilon=0.3, hold=4)


def network_behavior(task: str = TASK, bins: int = BINS, level: str = "expert") -> Behavior:
    if level == "random":
        return Behavior(task, bins, level, "random", {}, None)
    spec = get_task(task)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DecoupledQNetwork(spec.observation_size, spec.action_spec(bins), [64]).eval()
        torch.nn.init.normal_(network.head.weight)
    return Behavior(task, bins, level, "net", {}, network)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behaviours that are there whatever has been trained; in this process only."""
    monkeypatch.setattr(collection_module, "load_behavior", network_behavior)
    monkeypatch.setattr(build_module, "load_behavior", network_behavior)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path))
    return tmp_path


def assert_equal(one: Iterable[Episode], other: Iterable[Episode]) -> None:
    for first, second in zip(one, other, strict=True):
        for field in ("observations", "actions", "rewards", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field), err_msg=field)


def test_an_episode_does_not_depend_on_those_beside_it() -> None:
    behavior, environment = network_behavior(), BatchedEnvironment(get_task(TASK), BINS, 5)
    together = roll_out(GREEDY, behavior, environment, [0, 1, 2, 3, 4], [60, 60, 60, 60, 25])
    for number, length in ((3, 60), (4, 25), (0, 60)):
        assert_equal(roll_out(GREEDY, behavior, environment, [number], [length]), together[number : number + 1])
    assert len({episode.observations.tobytes() for episode in together}) == 5


def test_actions_are_greedy_but_for_the_random_ones() -> None:
    behavior, environment = network_behavior(), BatchedEnvironment(get_task(TASK), BINS, 1)
    (episode,) = roll_out(GREEDY, behavior, environment, [2], [40])
    explore, choice = exploration(GREEDY, environment.action_spec, 2)
    wanted = np.where(explore[:40], choice[:40], behavior.act(episode.observations[:-1]))
    np.testing.assert_array_equal(episode.actions, wanted)
    assert 0 < explore[:40].mean() < 1
    assert not episode.terminated.any() and episode.truncated.tolist() == [False] * 39 + [True]


def test_random_sub_actions_are_as_many_as_asked_for_and_held() -> None:
    spec = get_task(TASK).action_spec(BINS)
    explore, choice = exploration(GREEDY, spec, 0)
    assert explore.shape == choice.shape == (EPISODE_STEPS, 2)
    for block in range(0, EPISODE_STEPS, 4):
        assert (explore[block : block + 4] == explore[block]).all() and (
            choice[block : block + 4] == choice[block]
        ).all()
    share = np.mean([exploration(GREEDY, spec, number)[0].mean() for number in range(100)])
    assert abs(share - 0.3) < 0.02
    assert set(np.unique(choice)) == {0, 1, 2}


def test_the_number_of_transitions_is_exact_and_reported() -> None:
    reports: list[tuple[int, int]] = []
    episodes = list(collect_episodes(RANDOM, 2300, progress=lambda done, total: reports.append((done, total))))
    assert [len(episode) for episode in episodes] == [1000, 1000, 300]
    assert reports[-1] == (2300, 2300) and len(reports) > 5
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})


@pytest.mark.slow
@pytest.mark.parametrize(
    "rollout",
    [
        RANDOM,
        attrs.evolve(GREEDY, behavior_fingerprint=load_behavior(TASK, BINS, "expert").fingerprint),  # as it ships
    ],
    ids=["random", "expert"],
)
def test_processes_change_nothing(rollout: Rollout) -> None:
    here = list(collect_episodes(rollout, 4200))
    assert_equal(collect_episodes(rollout, 4200, processes=2), here)
    rest = collect_episodes(rollout, 4200, first=2, processes=2)
    assert_equal(rest, here[2:])


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_collection() -> None:
    other = attrs.evolve(RANDOM, behavior_fingerprint="of another time")
    with pytest.raises(CollectionError, match="has died"):
        list(collect_episodes(other, 3000, processes=2))


def test_a_behavior_that_changed_is_refused(shipped: None) -> None:
    with pytest.raises(CollectionError, match="is now net, not older"):
        list(collect_episodes(attrs.evolve(GREEDY, behavior_fingerprint="older"), 10))


def test_a_source_is_collected_once_and_extended(cache: Path) -> None:
    small = source_store(RANDOM, 1200)
    assert cached_transitions(RANDOM) == len(small) == 1200
    reports: list[int] = []
    large = source_store(RANDOM, 2100, BuildOptions(progress=lambda done, total: reports.append(done)))
    assert min(reports) > 1000  # the first whole episode was there
    assert_equal(large.episodes(), collect_episodes(RANDOM, 2100))
    assert (
        source_store(RANDOM, 500, BuildOptions(progress=lambda done, total: pytest.fail("collected again"))).path
        == large.path
    )
    assert not small.path.exists()
    record = large.metadata.sources[0]
    assert (record.behavior, record.fingerprint, record.epsilon, record.seed) == ("random", "random", 1.0, 7)


def test_tiers_share_what_was_collected(cache: Path, shipped: None) -> None:
    expert, noise = Source(behavior="expert", epsilon=0.1), Source(behavior="random")
    single, mixed = Tier(sources=[expert]), Tier(sources=[noise, expert])
    first = tier_store("expert", single, TASK, BINS, 1500, seed=1)
    reports: list[int] = []
    both = tier_store(
        "mixed",
        mixed,
        TASK,
        BINS,
        1500,
        seed=1,
        options=BuildOptions(progress=lambda done, total: reports.append(total)),
    )
    assert set(reports) == {750}  # only the random source was collected
    assert len(both) == 1500 and both.metadata.tier == "mixed"
    assert [(record.behavior, record.transitions) for record in both.metadata.sources] == [
        ("random", 750),
        ("expert", 750),
    ]
    episodes = list(both.episodes())
    assert [(episode.source, len(episode)) for episode in episodes] == [(0, 750), (1, 750)]
    assert_equal([episodes[1]], [first.episode(0).first(750)])
    assert tier_store("mixed", mixed, TASK, BINS, 1500, seed=1).path == both.path
    assert tier_store("mixed", mixed, TASK, BINS, 1500, seed=2).fingerprint != both.fingerprint


def test_a_damaged_tier_is_refused_by_name(cache: Path) -> None:
    tier = Tier(sources=[Source(behavior="random")])
    store = tier_store("random", tier, TASK, BINS, 100, seed=0)
    file = store.path / "transitions" / "action.memmap"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(StoreError, match=f"{store.path.name}.*action.memmap has been altered"):
        tier_store("random", tier, TASK, BINS, 100, seed=0)


def test_a_damaged_tier_and_source_are_named_and_made_anew(cache: Path) -> None:
    tier = Tier(sources=[Source(behavior="random")])
    store = tier_store("random", tier, TASK, BINS, 100, seed=0)
    wanted, said = store.fingerprint, []
    (source,) = (cache / "sources").glob("*/100")
    for folder in (store.path, source):
        file = folder / "transitions" / "action.memmap"
        file.write_bytes(bytes(file.stat().st_size))
    again = tier_store("random", tier, TASK, BINS, 100, seed=0, options=BuildOptions(on_damage=said.append))
    assert again.fingerprint == wanted
    assert [str(folder) in line for folder, line in zip((store.path, source), said, strict=True)] == [True, True]
    assert all(line.endswith("has been altered (its checksum differs); it is made anew") for line in said)
    assert tier_store("random", tier, TASK, BINS, 100, seed=0).fingerprint == wanted


def test_an_interrupted_collection_leaves_no_store(cache: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source_store(RANDOM, 1200, BuildOptions(progress=interrupt))
    assert cached_transitions(RANDOM) == 0 and not list(cache.rglob("*.memmap"))


def stopped_after(steps: int) -> Callable[[int, int], None]:
    """Progress that interrupts, as Ctrl-C would."""

    def progress(done: int, total: int) -> None:
        if done > steps:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two episodes at once, so that a small collection comes in several parts."""
    monkeypatch.setattr(collection_module, "WIDEST", 2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINRL_HOME", str(tmp_path_factory.mktemp("undisturbed")))
        return source_store(RANDOM, 5300)


def test_an_interrupted_collection_goes_on(cache: Path, narrow: None, undisturbed: Store) -> None:
    for stop in (2500, 4500):
        with pytest.raises(KeyboardInterrupt):
            source_store(RANDOM, 5300, BuildOptions(progress=stopped_after(stop)))
    assert len(list(cache.rglob("*.npz"))) == 4
    reports: list[int] = []
    store = source_store(RANDOM, 5300, BuildOptions(progress=lambda done, total: reports.append(done)))
    assert min(reports) > 4000 and max(reports) == 5300
    assert store.fingerprint == undisturbed.fingerprint
    assert not list(cache.rglob("*.npz")) and not list(cache.rglob("*.partial"))


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: b"", lambda content: content[::-1]])
def test_a_damaged_episode_is_collected_anew(
    cache: Path, narrow: None, undisturbed: Store, damage: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        source_store(RANDOM, 5300, BuildOptions(progress=stopped_after(4500)))
    (file,) = cache.rglob("2.npz")
    file.write_bytes(damage(file.read_bytes()))
    reports: list[int] = []
    store = source_store(RANDOM, 5300, BuildOptions(progress=lambda done, total: reports.append(done)))
    assert 2000 < min(reports) < 3000 and store.fingerprint == undisturbed.fingerprint


def test_a_flipped_bit_of_an_episode_is_found(tmp_path: Path) -> None:
    episode = random_episode(50, get_task(TASK).action_spec(BINS), 9)
    kept = KeptEpisodes(tmp_path)
    kept.save(0, episode)
    read = kept.read(0, 50)
    assert read is not None and len(kept) == 1
    assert_equal([read], [episode])
    assert kept.read(0, 51) is None and kept.read(1, 50) is None
    content = bytearray((tmp_path / "0.npz").read_bytes())
    content[content.find(b"NUMPY") + 400] ^= 1
    (tmp_path / "0.npz").write_bytes(content)
    assert kept.read(0, 50) is None


def test_a_collection_killed_just_before_its_end_needs_no_simulator(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(StoreWriter, "finish", killed)
        source_store(RANDOM, 1200)
    store = source_store(
        RANDOM, 1200, BuildOptions(processes=2, progress=lambda done, total: pytest.fail("collected again"))
    )
    assert_equal(store.episodes(), collect_episodes(RANDOM, 1200))


def test_a_disk_that_does_not_take_an_episode_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()  # a file where the folder should be
    episode = random_episode(5, get_task(TASK).action_spec(BINS), 9)
    with pytest.raises(StoreError, match=r"episode 0 could not be kept.*the same command goes on") as raised:
        KeptEpisodes(tmp_path / "taken").save(0, episode)
    assert "\n" not in str(raised.value)


def test_a_behavior_that_is_not_shipped_says_how_to_train_it(cache: Path) -> None:
    tier = Tier(sources=[Source(behavior="expert")])
    with pytest.raises(BehaviorError, match=r"tools.train_behavior --task finger-spin --bins 7"):
        tier_store("expert", tier, TASK, 7, 1000, seed=0)


def test_a_script_may_collect_at_its_top_level(tmp_path: Path) -> None:
    """The processes that it collects in do not run it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from spinrl.data import Rollout, collect_episodes\n"
        f"found = list(collect_episodes({RANDOM!r}, {3 * EPISODE_STEPS}, processes=2))\n"
        "print('collected', len(found))\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert ran.stdout == "collected 3\n", ran.stderr
