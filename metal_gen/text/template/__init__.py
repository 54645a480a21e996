"""The sandbox of chat templates, and its limits."""
