"""Speculation: where guesses of the next tokens come from, how many are tried, and how they are verified."""
