"""The settings that a row sets itself, under their own names or those of OpenAI's API."""

from collections.abc import Mapping
from difflib import get_close_matches

from metal_gen.batch.input.row_json import shown
from metal_gen.config.checks import Whole, with_value
from metal_gen.config.constraints.checks import CONSTRAINTS
from metal_gen.config.settings import SETTINGS
from metal_gen.errors import UsageError

SECTIONS = ("sampling", "generation")
OWN_NAMES = tuple(info.name for info in SETTINGS.values() if info.section in SECTIONS)
OTHER_NAMES = {"n": "samples", "max_completion_tokens": "max_tokens", "top_logprobs": "logprobs"}
ROW_NAMES = (*OWN_NAMES, *OTHER_NAMES)
KEEP_HINT = "--keep-fields copies fields that are not parameters to the record, --field prompt all others"
# Settings where a text stands for a list of one.
LISTS = ("stop", "stop_token", "ban_token")
# Fields of a request that do not affect the text, and fields with only one supported value.
IGNORED = ("model", "user", "metadata", "service_tier", "store", "safety_identifier", "prompt_cache_key")
ONLY: dict[str, object] = {
    "stream": False,
    "echo": False,
    "best_of": 1,
}
RESPONSE_FORMAT = "response_format"
TEMPLATE_SWITCHES = "chat_template_kwargs"
THINKING_SWITCH = "enable_thinking"


def row_settings(given: Mapping[str, object], *, hint: str = KEEP_HINT) -> dict[str, object]:
    """Check the settings of a row.

    Args:
        given: Values by name, none of them None.
        hint: Advice for unknown names.

    Returns:
        Checked values by setting name.

    Raises:
        UsageError: A name is unknown or given twice, or a value is out of range.
    """
    values: dict[str, object] = {}
    spellings: dict[str, str] = {}
    for spelling, value in _with_one_logprobs(given).items():
        name = _setting_name(spelling, hint)
        if name in values:
            raise UsageError(f"{name} is given twice: as {spellings[name]} and as {spelling}")
        values[name], spellings[name] = _checked(spelling, name, value), spelling
    # A row with a random seed uses the run's, so that a resumed run draws the same text.
    return {name: value for name, value in values.items() if (name, value) != ("seed", -1)}


def request_settings(given: Mapping[str, object]) -> dict[str, object]:
    """Check the settings in the body of a request to OpenAI's API.

    Raises:
        UsageError: As for `row_settings`, or a batch does not support a value.
    """
    rest = {name: value for name, value in given.items() if name not in IGNORED}
    for name in ONLY.keys() & rest.keys():
        if rest.pop(name) != ONLY[name]:
            raise UsageError(f"{name} can only be {shown(ONLY[name])} in a batch")
    if TEMPLATE_SWITCHES in rest:
        switches = rest.pop(TEMPLATE_SWITCHES)
        if not isinstance(switches, dict):
            raise UsageError(f"{TEMPLATE_SWITCHES} must be an object")
        others = {name: value for name, value in switches.items() if name != THINKING_SWITCH}
        if THINKING_SWITCH in switches:
            if "thinking" in rest:
                raise UsageError(f"thinking is given twice: as thinking and as {THINKING_SWITCH}")
            rest["thinking"] = switches[THINKING_SWITCH]
        if others:
            if "template_arg" in rest:
                raise UsageError(f"template_arg is given twice: as template_arg and as {TEMPLATE_SWITCHES}")
            rest["template_arg"] = others
    if rest.get("tools") == []:
        del rest["tools"]
    choice = rest.get("tool_choice")
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        rest["tool_choice"] = choice["function"].get("name")
    if RESPONSE_FORMAT in rest:
        schema = _requested_schema(rest.pop(RESPONSE_FORMAT))
        if schema is not None and rest.keys() & set(CONSTRAINTS):
            raise UsageError(
                f"{RESPONSE_FORMAT} is given together with another constraint", "leave one of them out"
            )
        if schema is not None:
            rest["schema"] = schema
    return row_settings(rest, hint="")


def _requested_schema(value: object) -> object:
    """Return the schema that OpenAI's `response_format` asks for; None for a text of any kind."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = value.get("json_schema") if isinstance(value, dict) else None
    if kind != "json_schema" or not isinstance(described, dict) or "schema" not in described:
        raise UsageError(
            f"{RESPONSE_FORMAT} must be text, json_object, or json_schema with a schema: {shown(value)}"
        )
    return described["schema"]


def _with_one_logprobs(given: Mapping[str, object]) -> dict[str, object]:
    """Merge the switch and the count of chat requests into a count; 0 means only the sampled token's own."""
    rest, switch = dict(given), given.get("logprobs")
    if switch is True:
        del rest["logprobs"]
        rest.setdefault("top_logprobs", 0)
    elif "top_logprobs" in rest:
        raise UsageError("top_logprobs needs logprobs, set to true")
    elif switch is False:
        del rest["logprobs"]
    return rest


def _setting_name(spelling: str, hint: str) -> str:
    name = OTHER_NAMES.get(spelling, spelling)
    if name in OWN_NAMES:
        return name
    if name in SETTINGS:
        raise UsageError(f"{name} is a setting of the whole run, not of a row")
    near = get_close_matches(spelling[:40], ROW_NAMES, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"there is no parameter {shown(spelling)}", f"{guess}{hint}".strip())


def _checked(spelling: str, name: str, value: object) -> object:
    given = [value] if name in LISTS and isinstance(value, str) else value
    if isinstance(SETTINGS[name].check, Whole) and isinstance(value, float) and value.is_integer():
        given = int(value)  # JSON allows 3.0 for 3
    try:
        return SETTINGS[name].check(given)
    except ValueError as error:
        raise UsageError(f"{spelling} {with_value(error, shown(value))}", SETTINGS[name].hint) from None
