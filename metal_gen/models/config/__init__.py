"""The only readers of config.json: what it says of a model, checked."""
