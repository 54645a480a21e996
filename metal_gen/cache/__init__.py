"""The caches of fixed size: one text, several slots, hybrids."""
