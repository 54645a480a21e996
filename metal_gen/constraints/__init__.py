"""Constraints: which tokens may come next, so that a text fits a schema, a pattern or a grammar."""
