"""From a model name to its files, and from files to weights and a tokenizer."""
