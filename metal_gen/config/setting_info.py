"""The definition of a setting: its names, range, default and help text."""

from dataclasses import Field, dataclass, field
from typing import Any

from metal_gen.config.checks import Check

# Settings in this section apply only to the command line: the library displays nothing.
TERMINAL = "terminal"


@dataclass(frozen=True)
class SettingInfo:
    """The definition of a setting.

    Attributes:
        name: Name of the field, the flag and the variable.
        section: TOML table.
        key: TOML key within the table.
        check: Type and range.
        default: Default value; None if it depends on the checkpoint or the machine.
        help: Help text, beginning with a verb.
        unset: Description of the default, if the value itself does not say it.
    """

    name: str
    section: str
    key: str
    check: Check
    default: object
    help: str
    unset: str

    @property
    def shown_default(self) -> str:
        """The default as shown in help."""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return self.unset or ("none" if self.default in (None, ()) else str(self.default))

    @property
    def hint(self) -> str:
        """Hint for a value that is refused; empty if the message says all."""
        return f"`metal-gen help {self.check.topic}` shows how to write it" if self.check.topic else ""

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"METAL_GEN_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Name of the command-line option."""
        return "--" + self.name.replace("_", "-")


def setting(section: str, check: Check, default: Any, help: str, *, key: str = "", unset: str = "") -> Any:
    """Define a dataclass field that is a setting; see `SettingInfo` for the arguments."""
    described = {"section": section, "check": check, "help": help, "key": key, "unset": unset}
    return field(default=default, metadata=described)


def info_of(field: Field[Any]) -> SettingInfo:
    """Return the definition stored by `setting`."""
    known = {**field.metadata, "key": field.metadata["key"] or field.name}
    return SettingInfo(name=field.name, default=field.default, **known)
