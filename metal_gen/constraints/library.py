"""llguidance, the library that matches grammars: imported when a constraint is used.

No other module imports it. https://github.com/guidance-ai/llguidance
"""

from types import ModuleType
from typing import Any

from metal_gen.errors import UsageError

# The library's own limit of 2,000 stops at objects of some 500 properties.
MOST_ITEMS_IN_ROW = 50_000


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


def new_matcher(table: Any, grammar: str) -> Any:
    """Return a matcher at the beginning of a text. Its `is_error` says whether the grammar can be used.

    Args:
        table: The vocabulary, as an `LLTokenizer`.
        grammar: A grammar in the library's own form.
    """
    library = llguidance()
    limits = library.LLParserLimits(max_items_in_row=MOST_ITEMS_IN_ROW)
    return library.LLMatcher(table, grammar, log_level=0, limits=limits)
