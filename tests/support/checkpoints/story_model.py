"""The trained test model for multi-token prediction, which `scripts/make_mtp_model.py` makes."""

import shutil
from pathlib import Path

STORIES = Path(__file__).parents[2] / "data" / "mtp_stories"
BUNDLED = Path(__file__).parents[3] / "metal_gen" / "bundled"


def write_story_model(folder: Path) -> Path:
    """Write the model with the bundled model's tokenizer, from which it learned."""
    shutil.copytree(STORIES, folder, dirs_exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, folder / name)
    return folder
