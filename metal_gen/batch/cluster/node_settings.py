"""The settings that nodes of a cluster load a model with: paths mean the same in the folders they run in."""

from pathlib import Path

from metal_gen.config.settings import Settings
from metal_gen.generation.loading import PreparedModel
from metal_gen.generation.prefixes.prompt_prefix import prefix_path
from metal_gen.hub.reference import LocalModel, parse_model_reference


def settings_of_nodes(prepared: PreparedModel) -> Settings:
    """Return the settings of a run with absolute paths. `~` in a prefix folder is the home of each node."""
    settings, values = prepared.settings, dict[str, object]()
    if settings.model and isinstance(parse_model_reference(settings.model), LocalModel):
        values["model"] = str(prepared.checkpoint.folder.resolve())
    if settings.draft_model and isinstance(draft := parse_model_reference(settings.draft_model), LocalModel):
        values["draft_model"] = str(draft.path.resolve())
    if adapters := prepared.checkpoint.weights.adapters:
        values["adapter"] = tuple(f"{each.folder.resolve()}={each.scale!r}" for each in adapters)
    if settings.prefix_file:
        values["prefix_file"] = str(prefix_path(settings.prefix_file).absolute())
    if (folder := settings.prefix_cache_dir) and not folder.startswith("~"):
        values["prefix_cache_dir"] = str(Path(folder).absolute())
    return settings.override(values, {name: settings.source(name) for name in values})
