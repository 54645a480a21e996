"""From logits to a token: sampling strategies, and how they draw."""
