"""From settings to text: the memory plan, loading, prompts, generations, conversations."""
