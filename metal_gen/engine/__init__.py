"""The decode loop. It works on token ids: no tokenizer, no files, no console."""
