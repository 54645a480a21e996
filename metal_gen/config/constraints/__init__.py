"""Settings that constrain a text, and that end thinking."""
