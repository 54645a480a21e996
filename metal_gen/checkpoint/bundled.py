"""The small model that ships with the package, for a first run without a download."""

from pathlib import Path

BUNDLED_FOLDER = Path(__file__).resolve().parent.parent / "bundled"
