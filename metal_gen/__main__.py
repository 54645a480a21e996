"""`python -m metal_gen` is `metal-gen`."""

from metal_gen.cli.main import run

run()
