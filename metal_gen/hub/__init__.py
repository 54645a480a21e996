"""Models on the Hugging Face Hub and in its local cache."""
