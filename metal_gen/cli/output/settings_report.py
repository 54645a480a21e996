"""The settings in force as a table and as JSON."""

from rich.console import RenderableType

from metal_gen.cli.terminal.tables import Column, rows_table, shown
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.settings_file import plain_value, shown_value

COLUMNS = (Column("setting"), Column("value"), Column("source"))


def settings_table(settings: Settings, width: int) -> RenderableType:
    """Return a table with one row per setting, with its value as TOML."""
    rows = [(name, shown(shown_value(settings, name)), shown(settings.source(name))) for name in SETTINGS]
    return rows_table(COLUMNS, rows, width)


def settings_json(settings: Settings) -> dict[str, object]:
    """Return the settings as JSON types; null means not set."""
    return {
        name: {
            "value": plain_value(settings, name),
            "source": settings.source(name),
            "section": info.section,
            "key": info.key,
            "variable": info.variable,
        }
        for name, info in SETTINGS.items()
    }
