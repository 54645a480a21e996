"""The texts of `metal-gen generate`, from a prompt to where they go."""
