"""Opens a checkpoint: its files, its weights and its tokenizer."""
