"""The documentation builds as a site, with a reference of every public name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spinrl

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_tells_of_every_public_name(tmp_path):
    """Warnings are errors: a page out of the navigation, a name that is not there, an argument that is none."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    told = set(re.findall(r'id="spinrl\.[\w.]*?(\w+)"', page))
    assert set(spinrl.__all__) <= told, set(spinrl.__all__) - told
    assert "Raises:" in page and "Returns:" in page
