"""One run of `metal-gen score` or `metal-gen rank` without rows."""
