"""How the checkpoint inside the package is made: a story grammar, a training script and a measurement."""
