"""Makes `python -m metal_gen` the same as `metal-gen`."""

from metal_gen.cli.entry import run

run()
