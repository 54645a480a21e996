"""Everything a checkpoint contains besides weights, in Hugging Face's files or inside a GGUF file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from metal_gen.checkpoint.generation_defaults import FILE as GENERATION_FILE
from metal_gen.checkpoint.generation_defaults import read_generation_config
from metal_gen.errors import CheckpointError
from metal_gen.files.gguf_names import gguf_files
from metal_gen.files.json_file import read_json
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.files.weight_files import read_headers
from metal_gen.text.tokenizer import FILE as TOKENIZER_FILE
from metal_gen.text.tokenizer import TokenizerDocument, read_tokenizer

CONFIG_FILE = "config.json"


class Documents(Protocol):
    """The descriptions of a model's configuration, tensors and tokenizer."""

    @property
    def path(self) -> Path:
        """The checkpoint's folder, or its file."""
        ...

    @property
    def config_source(self) -> str:
        """Name of the source of `config`, for messages."""
        ...

    @property
    def config_name(self) -> str:
        """Name of the source of `config`, without its folder."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The object in config.json."""
        ...

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The object in generation_config.json; empty if there is none."""
        ...

    @property
    def generation_source(self) -> str:
        """What `generation_config` was read from, without its path."""
        ...

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer, which may be damaged."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices to the user."""
        ...

    def tensors(self) -> dict[str, TensorInfo]:
        """Return all tensors, by Hugging Face's names."""
        ...

    def stored_name(self, name: str) -> str:
        """Return the name of a tensor in the file."""
        ...

    def tokenizer(self) -> TokenizerDocument:
        """Return the objects in tokenizer.json and tokenizer_config.json."""
        ...


class FolderDocuments:
    """A folder in Hugging Face's layout."""

    config_name = CONFIG_FILE
    generation_source = GENERATION_FILE
    notices: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config_source = str(folder / CONFIG_FILE)
        self.config = read_json(folder / CONFIG_FILE)
        self.generation_config = read_generation_config(folder)
        self.has_tokenizer = (folder / TOKENIZER_FILE).is_file()

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the tensors of the safetensors files."""
        return read_headers(self.path)

    def stored_name(self, name: str) -> str:
        """Return the name unchanged."""
        return name

    def tokenizer(self) -> TokenizerDocument:
        """Read tokenizer.json and tokenizer_config.json."""
        return read_tokenizer(self.path)


def open_documents(path: Path) -> Documents:
    """Open a folder in Hugging Face's layout, a GGUF file, or a folder that holds one.

    Raises:
        CheckpointError: The path cannot be read, or the folder has several GGUF files.
    """
    if path.is_file():
        return _gguf_documents(path)
    if (path / CONFIG_FILE).is_file():
        return FolderDocuments(path)
    files = gguf_files(path)
    if len(files) > 1:
        raise CheckpointError(
            f"{path} has several GGUF files: {', '.join(file.name for file in files)}",
            f"name one: --model {files[0]}",
        )
    return _gguf_documents(files[0]) if files else FolderDocuments(path)


def _gguf_documents(file: Path) -> Documents:
    """Open a GGUF file. The import is here because a folder does not need it."""
    from metal_gen.checkpoint.gguf.documents import GgufDocuments

    return GgufDocuments(file)
