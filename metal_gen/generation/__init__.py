"""From settings to text: the memory plan, loading, prompts, generation and conversations."""
