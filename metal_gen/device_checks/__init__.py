"""Checks that this device computes what a CPU computes: one file per kind of kernel."""
