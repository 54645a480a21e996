"""Reads a TOML file safely, whatever its size and kind."""

import re
import shlex
import stat
import tomllib
from pathlib import Path

from metal_gen.errors import ConfigError
from metal_gen.excerpt import excerpt
from metal_gen.files.missing_file import nearest_name
from metal_gen.files.utf8.decode import NotTextError, decode_utf8, require_text

# Ten times a file with every setting and its comments. Parsing takes quadratic time in the length.
MOST_BYTES = 131_072
# A key needs at most three parts, as in sampling.logit_bias.token; tomllib takes hours for thousands.
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}){{100}}")


def read_document(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Args:
        path: A regular file, or a pipe that a shell has created.

    Raises:
        ConfigError: The file is missing, unreadable, a folder, a device, too large, or not TOML.
    """
    try:
        document = tomllib.loads(_text(path))
    except RecursionError:
        raise ConfigError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:
        reason = "a number has thousands of digits" if "integer string" in str(error) else str(error)
        raise ConfigError(f"{path} is not valid TOML: {excerpt(reason)}") from None
    return document


def _text(path: Path) -> str:
    data = _bytes(path)
    try:
        require_text(data)
        if len(data) > MOST_BYTES:
            raise ConfigError(f"the settings file {path} has more than {MOST_BYTES // 1024} KiB")
        text = decode_utf8(data)
    except NotTextError as error:
        raise ConfigError(f"{path} {error}", error.hint(str(path))) from None
    if LONG_KEY.search(text):
        raise ConfigError(f"{path} is not valid TOML: a key has a hundred parts")
    return text


def _bytes(path: Path) -> bytes:
    """Return the bytes of a file, at most one more than it may have."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise ConfigError(f"the settings file is a device: {path}", "name a TOML file")
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError(f"the settings file is a folder: {path}", "name the TOML file in it") from None
    except FileNotFoundError:
        near = nearest_name(path)
        hint = (
            f"did you mean {near}?" if near else f"`metal-gen config init {shlex.quote(str(path))}` writes it"
        )
        raise ConfigError(f"there is no settings file {path}", hint) from None
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from None
    except ValueError:  # NUL, or an unpaired surrogate
        raise ConfigError(f"no file can have this name: {str(path)!a}") from None
