"""llguidance, the library that matches grammars: imported when a constraint is used.

No other module imports it. https://github.com/guidance-ai/llguidance
"""

from types import ModuleType

from metal_gen.errors import UsageError


def llguidance() -> ModuleType:
    """Return the library.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import llguidance as library
    except ImportError:
        raise UsageError(
            "a schema, regex, choice or grammar needs llguidance, which is not installed",
            "in the checkout: pip install '.[structured]'",
        ) from None
    return library
