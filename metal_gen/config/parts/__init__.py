"""Parts of `Settings`: settings of one subject each."""
