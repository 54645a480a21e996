"""The settings in force as a table and as JSON."""

from rich.console import RenderableType

from metal_gen.cli.tables import Column, rows_table, shown
from metal_gen.config.checks import Biases
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.settings_file import toml_value

COLUMNS = (Column("setting"), Column("value"), Column("source"))
NOT_SET = "not set"


def settings_table(settings: Settings, width: int) -> RenderableType:
    """A line for each setting, its value as a file would have it."""
    rows = [
        (name, NOT_SET if value is None else shown(toml_value(value)), shown(settings.source(name)))
        for name, value in _values(settings).items()
    ]
    return rows_table(COLUMNS, rows, width)


def settings_json(settings: Settings) -> dict[str, object]:
    """The same for programs; null is not set."""
    return {
        name: {
            "value": value,
            "source": settings.source(name),
            "section": SETTINGS[name].section,
            "key": SETTINGS[name].key,
            "variable": SETTINGS[name].variable,
        }
        for name, value in _values(settings).items()
    }


def _values(settings: Settings) -> dict[str, object]:
    """By name, each of a kind that TOML and JSON have."""
    return {
        name: dict(getattr(settings, name)) if isinstance(info.check, Biases) else getattr(settings, name)
        for name, info in SETTINGS.items()
    }
