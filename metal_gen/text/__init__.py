"""Text handling: messages, templates, tokens, thinking and stop strings."""
