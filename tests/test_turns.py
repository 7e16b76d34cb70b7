"""Trainings of one process draw what they would alone, have their turns in order, and end together."""

import contextlib
import threading
import time

import pytest
import torch

from spinrl.turns import Turns, apart, hand_over


def run(bodies, turns=None):
    """Run each body in a thread that takes part in the same turns."""
    turns = turns or Turns()

    def take_part(body):
        with contextlib.suppress(SystemExit), turns.taking_part():
            body()

    threads = [threading.Thread(target=take_part, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    return turns, threads


def test_each_draws_what_it_would_alone():
    drawn = {}

    def body(seed):
        torch.manual_seed(seed)
        drawn[seed] = []
        for _ in range(5):
            drawn[seed].append(torch.rand(3).tolist())
            hand_over()

    expected = {}
    for seed in range(3):
        torch.manual_seed(seed)
        expected[seed] = [torch.rand(3).tolist() for _ in range(5)]
    _, threads = run([lambda seed=seed: body(seed) for seed in range(3)])
    for thread in threads:
        thread.join(10)
    assert drawn == expected


def test_turns_go_round_and_no_two_run_at_a_time():
    order, running, turns = [], [], Turns()

    def body(name):
        while not order and len(turns._waiting) < 2:
            time.sleep(0.01)
        for _ in range(4):
            running.append(name)
            order.append(name)
            time.sleep(0.001)
            assert running == [name]
            running.clear()
            hand_over()

    _, threads = run([lambda name=name: body(name) for name in "abc"], turns)
    for thread in threads:
        thread.join(10)
    assert len(order) == 12 and order == order[:3] * 4 and set(order) == {"a", "b", "c"}


def test_who_waits_apart_lets_the_others_go_on():
    waited, done = threading.Event(), []

    def waiting():
        with apart():
            assert waited.wait(10)
        done.append("first")

    def other():
        waited.set()
        done.append("other")

    _, threads = run([waiting, other])
    for thread in threads:
        thread.join(10)
    assert sorted(done) == ["first", "other"]


def test_all_end_when_they_are_told_to():
    ended = []

    def body():
        try:
            while True:
                hand_over()
        finally:
            ended.append(True)

    turns, threads = run([body, body, body])
    turns.end()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(ended) <= 3  # one that had no turn yet has nothing to clean up


@pytest.mark.parametrize("call", [hand_over, lambda: apart().__enter__()])
def test_alone_nothing_happens(call):
    torch.manual_seed(0)
    call()
    ours = torch.rand(2)
    torch.manual_seed(0)
    assert torch.equal(ours, torch.rand(2))
