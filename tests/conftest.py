"""Makes the tests' own modules importable by name in worker processes, which get this process's path."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[1]))
