"""The only readers of config.json: they check it and return a model's configuration."""
