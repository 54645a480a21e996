"""The constants of huggingface_hub, which reads the environment when it is imported."""

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
        ConfigError: An environment variable of the library has an invalid value.
    """
    for name in _SECONDS:
        value = os.environ.get(name)
        if value and not (value.isascii() and value.isdigit() and 0 < int(value[:9]) <= _LONGEST_S):
            raise ConfigError(
                f"{name} must be a number of seconds: {excerpt(value)}", f"unset it, or set {name}=10"
            )

    from huggingface_hub import constants

    return constants


def endpoint() -> str:
    """Return the address of the Hub for messages: without a password, and shortened."""
    return excerpt(re.sub(r"//[^/@]*@", "//", str(library_constants().ENDPOINT)))
