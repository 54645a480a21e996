"""Rows of matrix products that do not depend on one another."""
