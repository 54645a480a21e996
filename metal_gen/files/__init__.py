"""Files without knowing any model: formats that are read, and how anything reaches the disk whole."""
