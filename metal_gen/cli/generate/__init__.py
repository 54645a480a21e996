"""A run of `metal-gen generate`, from a prompt to the output."""
