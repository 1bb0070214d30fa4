"""What `make mutants` asks is the changed module, and not the one that was imported before the change."""

from __future__ import annotations

import subprocess
import sys

from .conftest import PROJECT

FORGET = """
import sys
from pipeline.story import rate
from benchmarks.forks import _forget
old = rate
_forget("pipeline.story.rate")
from pipeline.story import rate
import pipeline.story.rate as same
assert old is not rate is same is sys.modules["pipeline.story.rate"], (old, rate, same)
"""


def test_a_module_is_imported_anew_by_whatever_name_a_test_asks_for_it():
    subprocess.run([sys.executable, "-c", FORGET], cwd=PROJECT, check=True, timeout=120)
