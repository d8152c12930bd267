"""Owns the golden answers by their row of the fault matrix."""

from __future__ import annotations

import re
from pathlib import Path

GOLDEN = Path(__file__).parent / "unit" / "golden_answers"

#: A01 to A30 → the body as it came
BODIES = {path.name[:3]: path.read_bytes() for path in sorted(GOLDEN.iterdir()) if re.match(r"A\d\d_", path.name)}
