"""Tests that options with the same meaning agree, and contradictory ones are refused."""

import pytest
import typer

from metal_gen.cli.app import app
from metal_gen.cli.input.setting_options import settings_in_force
from metal_gen.errors import UsageError
from metal_gen.generation.strategy_settings import is_greedy

pytest_plugins = ("fixtures_cli",)

PROGRAM = typer.main.get_command(app)


@pytest.fixture
def settings_of(run_here):
    """Return the settings for options of `generate`, in a home without a settings file."""

    def settings_of(*options):
        command = PROGRAM.commands["generate"]
        context = command.make_context("generate", ["hi", *options], parent=typer.Context(PROGRAM))
        return settings_in_force(context.params)

    return settings_of


AGREEING = [
    ("--temperature", "0"),
    ("--temperature", "0.0", "--top-k", "1"),
    ("--top-k", "0"),
    ("--top-k", "-1", "--top-p", "1", "--min-p", "0"),
]
DRAWING = [("--temperature", "0.1"), ("--top-k", "2"), ("--top-p", "0.9"), ("--min-p", "0.1")]


@pytest.mark.parametrize("options", AGREEING, ids=" ".join)
def test_what_says_the_same_as_greedy_agrees_with_it(settings_of, options):
    for given in ((*options, "--greedy"), ("--greedy", *options)):
        settings = settings_of(*given)
        assert is_greedy(settings)
        assert settings.temperature == 0


@pytest.mark.parametrize("options", DRAWING, ids=" ".join)
def test_what_draws_contradicts_greedy(settings_of, options):
    with pytest.raises(UsageError, match=f"--greedy contradicts {' '.join(options)}"):
        settings_of(*options, "--greedy")
