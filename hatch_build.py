"""Puts the man pages into the wheel."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent / "scripts"))
from man_pages import write_pages


class ManPages(BuildHookInterface):  # type: ignore[misc]
    """Writes the pages before a wheel is built, and deletes them afterwards."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Hand the pages to the builder; an editable installation has none."""
        self._folder = tempfile.TemporaryDirectory()
        if version == "standard":
            for page in write_pages(Path(self._folder.name)):
                build_data["shared_data"][str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete the pages, which the wheel has."""
        self._folder.cleanup()
