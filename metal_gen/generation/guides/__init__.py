"""Guides of texts: constraints, thinking that ends, and loops that are broken."""
