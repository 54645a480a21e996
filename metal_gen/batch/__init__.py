"""A file of prompts in, a file of texts out, which a later run can go on with after a crash."""
