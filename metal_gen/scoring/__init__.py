"""How probable given texts are, and which of several is the most probable."""
