"""Everything about text: messages, templates, tokens, thinking, stop strings."""
