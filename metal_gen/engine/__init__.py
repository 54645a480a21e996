"""The decode loop, in token ids: no tokenizer, no files, no console."""
