"""Makes the tests' own modules importable by name in worker processes, which get this process's path."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[1]))

# What was measured on this machine decides nothing in tests, nor do they leave anything there.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="seamfree-cache-")
