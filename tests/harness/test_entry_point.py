"""Output never ends a command, whatever the terminal, the log and the reader do; tried in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import spinrl

ROOT = Path(spinrl.__file__).parent.parent
COMMAND = """
import sys
from harness.entry_point import entry_point

@entry_point()
def main(arguments=None):
    from rich.console import Console
    for number in range(3000):
        print(f"± … {number}")
    Console().print("│ 1 ± 2 −")
    print("a line to the error stream: …", file=sys.stderr)
    open("done", "w").close()
    return 0

sys.exit(main())
"""


def start(tmp_path, *options, command=COMMAND, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings.pop("environment", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.Popen([sys.executable, *options, "-c", command], cwd=tmp_path, env=environment, **pipes)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_the_terminal_cannot_show_is_replaced(encoding, tmp_path):
    process = start(tmp_path, environment={"PYTHONIOENCODING": encoding})
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.decode(encoding).splitlines()[0] == (
        "? ? 0" if encoding == "ascii" else "± … 0".encode(encoding, "replace").decode(encoding)
    )


@pytest.mark.parametrize("options", [(), ("-u",)], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT], ids=["out", "both"])
def test_a_reader_that_goes_ends_nothing(options, stderr, tmp_path):
    process = start(tmp_path, *options, stderr=stderr)
    process.stdout.readline()
    process.stdout.close()  # as head does
    said = process.stderr.read().decode() if process.stderr else ""
    assert process.wait(60) == 0 and (tmp_path / "done").exists()
    assert said in ("", "a line to the error stream: …\n")


def test_a_home_that_is_not_there_is_no_matter_of_matplotlibs(tmp_path):
    command = "from harness.entry_point import entry_point\nentry_point()(lambda _: __import__('matplotlib') and 0)()"
    process = start(tmp_path, command=command, environment={"HOME": "/proc/nope", "TMPDIR": str(tmp_path)})
    assert process.communicate(timeout=60) == (b"", b"") and process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_ends_nothing(tmp_path):
    with open("/dev/full", "wb") as full:
        assert start(tmp_path, stdout=full, stderr=full).wait(60) == 0
    assert (tmp_path / "done").exists()


def test_a_cache_that_cannot_be_used_is_one_line_and_code_2(tmp_path):
    command = "import sys\nfrom harness.entry_point import entry_point\nfrom spinrl.cache import require_writable\n"
    command += "from pathlib import Path\nsys.exit(entry_point()(lambda _: require_writable(Path('file/cache')))())"
    (tmp_path / "file").touch()
    process = start(tmp_path, command=command)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (
        error.decode()
        == f"{tmp_path}/file/cache cannot be written (Not a directory); set SPINRL_HOME to a folder of your own\n"
    )


def test_the_working_folder_is_looked_in_after_everything_else(tmp_path):
    (tmp_path / "wards.py").write_text("BEDS = 3")
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("raise ImportError('the user\\'s own')")
    (tmp_path / "start.py").write_text(
        f"import sys\nsys.path[0] = {str(ROOT)!r}\nfrom harness.entry_point import entry_point\n"
        "def main(_):\n    import wards, harness.records\n    return wards.BEDS\n"
        "sys.exit(entry_point()(main)())"
    )
    assert subprocess.run([sys.executable, "start.py"], cwd=tmp_path, timeout=60).returncode == 3
