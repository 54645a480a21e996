"""Parts of a tokenizer: the library that encodes, its reduced form, the vocabulary and its alphabet."""
