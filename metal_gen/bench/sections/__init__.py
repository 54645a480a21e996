"""The sections of the benchmark, one file each."""
