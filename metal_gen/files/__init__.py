"""File formats that are read without knowing any model: JSON, safetensors headers, lists of weight files."""
