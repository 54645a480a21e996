"""Batches over several machines, through Ray."""
