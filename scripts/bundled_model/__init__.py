"""Makes the bundled checkpoint: a story grammar, a training script and an evaluation."""
