"""From logits to a token: what a strategy is, and how it draws."""
