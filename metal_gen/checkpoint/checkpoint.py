"""An opened checkpoint: the model's configuration, the headers of its weights, and its tokenizer.

Opening reads small files only. `weights.load` reads the weights.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from metal_gen.checkpoint.documents import open_documents
from metal_gen.checkpoint.generation_defaults import token_ids
from metal_gen.checkpoint.packed.quantization import read_quantization
from metal_gen.checkpoint.weights import WeightFiles
from metal_gen.config.rope_scaling import RopeFields
from metal_gen.errors import CheckpointError
from metal_gen.models.config.language_part import language_fields
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.quantized import Packing
from metal_gen.models.registry import builder_for
from metal_gen.text.chat_template import ChatTemplate, read_chat_template
from metal_gen.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from metal_gen.checkpoint.adapters.adapter import Adapter
    from metal_gen.constraints.token_table import TokenTable


class Checkpoint:
    """A checkpoint in Hugging Face's layout, or a GGUF file.

    Args:
        path: A folder with config.json, tokenizer.json and safetensors files; or a GGUF file, or a folder
            with one.
        rope_scaling: Fields that override the file's, as for `ModelConfig.from_hf`.
        adapters: Adapters to add, as for `open_adapters`.
        packing: Quantize matrices to this while they are read, after adding adapters; None leaves them as
            they are.

    Attributes:
        folder: The folder, or the GGUF file: the first of several parts.
        packing: As given.
        config: The model's configuration.
        weights: Headers of the weights.
        generation_config: The object in generation_config.json; empty without one.
        generation_source: What `generation_config` was read from, without its path.

    Raises:
        CheckpointError: config.json, a weight file or an adapter is missing, damaged or not supported; or
            an adapter does not fit the model.
        ConfigError: The weights are already quantized in another way.
        ModelNotFoundError: There is no such adapter.
    """

    def __init__(
        self,
        path: Path,
        *,
        rope_scaling: RopeFields = (),
        adapters: Sequence[str] = (),
        packing: Packing | None = None,
    ) -> None:
        documents = open_documents(path)
        self.folder = documents.path
        self.packing = packing
        self._documents = documents
        raw_config, source = documents.config, documents.config_source
        if not isinstance(raw_config.get("model_type"), str):
            raise CheckpointError(f"{source} cannot be used: model_type is missing")
        # Refuses a family that is not supported.
        builder_for(raw_config["model_type"])
        config = ModelConfig.from_hf(raw_config, source=source, rope_scaling=rope_scaling)
        self.generation_config = documents.generation_config
        self.generation_source = documents.generation_source
        quantization = read_quantization(raw_config, source)
        opened = _opened(adapters) if adapters else ()
        self.weights = WeightFiles(documents, config, quantization, opened, packing)
        self.config = self.weights.config
        self._config_eos = token_ids(raw_config.get("eos_token_id")) | token_ids(
            language_fields(raw_config).get("eos_token_id")
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read from tokenizer.json on first use."""
        return Tokenizer(self._documents.tokenizer(), self.config.vocab_size)

    @cached_property
    def token_table(self) -> "TokenTable":
        """The vocabulary as constraints need it; built when it is first used."""
        from metal_gen.constraints.token_table import TokenTable

        return TokenTable(self.tokenizer, self.eos_ids)

    def read_tokenizer(self) -> None:
        """Read tokenizer and chat template now. Errors are those of their first use."""
        _ = self.tokenizer, self.chat_template

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The chat template; None for a base model."""
        return read_chat_template(self.folder, self.tokenizer.config)

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices to the user about the files."""
        return self._documents.notices + self.weights.notices

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer, which may be damaged."""
        return self._documents.has_tokenizer

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a text, from config.json, generation_config.json and the tokenizer.

        Ids outside the model's vocabulary are left out.
        """
        ids = (
            self._config_eos
            | token_ids(self.generation_config.get("eos_token_id"))
            | token_ids(self.tokenizer.eos_id)
        )
        return frozenset(token for token in ids if 0 <= token < self.config.vocab_size)


def _opened(adapters: Sequence[str]) -> "tuple[Adapter, ...]":
    """Open adapters. The import is here because few runs have any."""
    from metal_gen.checkpoint.adapters.adapter import open_adapters

    return open_adapters(adapters)
