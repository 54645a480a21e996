"""The blocks of numbers of a GGUF file, and what they become in memory."""
