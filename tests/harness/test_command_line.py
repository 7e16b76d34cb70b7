"""Signals that stop a command in good order, sent to processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import spinrl

COMMAND = """
import signal, sys, time
from harness.command_line import both_signals_stop
if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
try:
    with both_signals_stop():
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("stopping", flush=True)
    time.sleep(0.5)
    print("stopped", flush=True)
"""


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(spinrl.__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_each_signal_stops_in_good_order(name):
    process = start()
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=30)[0] == "stopping\nstopped\n"


def test_a_second_hang_up_does_not_cut_the_end_short():
    process = start()
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == "stopped\n"


def test_a_command_under_nohup_outlives_its_terminal():
    process = start("nohup")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "stopping\nstopped\n"
