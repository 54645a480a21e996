"""Settings: what can be set, in which range, and from where each value came."""
