"""A run of `metal-gen batch` and its report."""
