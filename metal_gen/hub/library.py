"""The constants of huggingface_hub, which reads the environment when they are imported."""

import os
import re
from types import ModuleType

from metal_gen.errors import ConfigError
from metal_gen.excerpt import excerpt

_SECONDS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
_LONGEST_S = 24 * 60 * 60


def library_constants() -> ModuleType:
    """Return the constants of huggingface_hub; importing them takes 4 ms.

    Raises:
        ConfigError: A variable of its environment cannot be used.
    """
    for name in _SECONDS:
        value = os.environ.get(name)
        if value and not (value.isascii() and value.isdigit() and 0 < int(value[:9]) <= _LONGEST_S):
            raise ConfigError(
                f"{name} is no number of seconds: {excerpt(value)}", f"unset it, or set {name}=10"
            )

    from huggingface_hub import constants

    return constants


def endpoint() -> str:
    """Return the address of the Hub as a message may quote it: without a password, and not too long."""
    return excerpt(re.sub(r"//[^/@]*@", "//", str(library_constants().ENDPOINT)))
