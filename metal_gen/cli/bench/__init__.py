"""Options and tables of `metal-gen bench`."""
