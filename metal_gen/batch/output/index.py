"""A set of ids, in memory that does not grow with their number."""

import sqlite3
from hashlib import blake2b
from typing import Self

from metal_gen.errors import MetalGenError

CACHE_KIB = 4096
DIGEST_BYTES = 16


class IdIndex:
    """A set of strings in a temporary file.

    It stores a 16-byte digest of each string, so long strings take no more room than short ones. The chance
    that two of a billion strings have the same digest is 1 in 10^20. The file never has a name, so nothing is
    left behind, however the process ends.
    """

    def __init__(self) -> None:
        self._count = 0
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute("PRAGMA synchronous = OFF")
        self._rows.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._rows.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, key: str) -> bool:
        """Add a string; return False if it was already present.

        Raises:
            MetalGenError: The temporary folder is full.
        """
        try:
            cursor = self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?)", (_digest(key),))
        except sqlite3.OperationalError as error:
            raise MetalGenError(
                f"the ids of the rows cannot be stored: {error}", "set TMPDIR to a folder with more room"
            ) from error
        self._count += cursor.rowcount
        return cursor.rowcount == 1

    def close(self) -> None:
        """Close and delete the file."""
        self._rows.close()

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        found = self._rows.execute("SELECT 1 FROM seen WHERE digest = ?", (_digest(key),))
        return found.fetchone() is not None

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _digest(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
