"""The small model that ships with the package, for a first run without a download."""

from pathlib import Path

# What stands for it where a model is named.
BUNDLED_NAME = "the bundled model"
BUNDLED_FOLDER = Path(__file__).resolve().parent.parent / "bundled"
