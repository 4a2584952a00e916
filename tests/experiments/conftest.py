"""The tools of the experiments are scripts: they import one another from their own folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments" / "tools"))
