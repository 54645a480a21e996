"""A run of `metal-gen batch`, with its progress and its report."""
