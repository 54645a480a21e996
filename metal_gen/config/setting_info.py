"""What is known of a setting: where it is written, what it may be, its default, and what it does."""

from dataclasses import Field, dataclass, field
from typing import Any

from metal_gen.config.checks import Check


@dataclass(frozen=True)
class SettingInfo:
    """Where a setting is written and what it may be.

    Attributes:
        name: Of the field, the flag and the variable.
        section: TOML table.
        key: TOML key within it.
        check: Its range.
        default: None where it follows from the checkpoint or the machine.
        help: What it does, beginning with a verb.
        unset: What happens where nobody sets it, in words, if the default does not say so.
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
        """The default as help names it."""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return self.unset or ("none" if self.default in (None, ()) else str(self.default))

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"METAL_GEN_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The command-line option."""
        return "--" + self.name.replace("_", "-")


def setting(section: str, check: Check, default: Any, help: str, *, key: str = "", unset: str = "") -> Any:
    """A field of a dataclass of settings; arguments as the attributes of `SettingInfo`."""
    described = {"section": section, "check": check, "help": help, "key": key, "unset": unset}
    return field(default=default, metadata=described)


def info_of(field: Field[Any]) -> SettingInfo:
    """Read what `setting` has noted."""
    known = {**field.metadata, "key": field.metadata["key"] or field.name}
    return SettingInfo(name=field.name, default=field.default, **known)
