"""Files without knowledge of models: formats to read, and safe ways to write."""
