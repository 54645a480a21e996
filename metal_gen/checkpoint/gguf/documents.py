"""Reads a model's config, tensors and tokenizer from a GGUF file."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from metal_gen.checkpoint.gguf.model import model_config
from metal_gen.checkpoint.gguf.parts import read_gguf
from metal_gen.checkpoint.gguf.sampling import SAMPLING, generation_config
from metal_gen.checkpoint.gguf.tensors import model_tensors, tensor_names
from metal_gen.checkpoint.gguf.tokenizer import tokenizer_document, tokenizer_notices
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.text.tokenizer import TokenizerDocument


class GgufDocuments:
    """The `Documents` of a GGUF file."""

    config_name = "metadata"
    generation_source = SAMPLING
    has_tokenizer = True

    def __init__(self, file: Path) -> None:
        self._header = read_gguf(file)
        self.path = self._header.path
        self.config_source = f"the metadata of {self.path}"
        self.generation_config = generation_config(self._header.metadata)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Configuration made from the metadata."""
        return model_config(self._header)

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices to the user about the tokenizer."""
        return tokenizer_notices(self._header)

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the tensors in the header, by the model's names."""
        return dict(model_tensors(self._header, self.config))

    def stored_name(self, name: str) -> str:
        """Return the name of a tensor in GGUF's spelling."""
        return tensor_names(self.config).in_file(name)

    def tokenizer(self) -> TokenizerDocument:
        """Build the tokenizer's files from the metadata."""
        return tokenizer_document(self._header)
