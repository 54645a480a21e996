"""Whether bytes are UTF-8 text, and what they are otherwise."""
