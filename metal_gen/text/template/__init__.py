"""What a chat template can do, and how much of it."""
