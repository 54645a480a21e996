"""Models on the Hugging Face Hub and in its cache on this disk."""
