"""Caches of fixed size: for one text, for several slots, and for hybrid models."""
