"""The weights of a checkpoint: checks that they fit the model, and reads them.

Checks every name and shape. Reads only safetensors and GGUF: nothing is unpickled, and no code from a
checkpoint runs.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from metal_gen.checkpoint.adapters.low_rank import factor_tensors
from metal_gen.checkpoint.documents import Documents
from metal_gen.checkpoint.gguf.blocks.forms import QUANTIZED
from metal_gen.checkpoint.matrix_forms import MatrixForms
from metal_gen.checkpoint.model_tensors import miscount, named_as_in_model, with_embedding
from metal_gen.checkpoint.packed.quantization import Quantization
from metal_gen.checkpoint.packed.quantizing import QuantizingRules
from metal_gen.checkpoint.packed.stored import FLOATS
from metal_gen.checkpoint.parameter_sources import WeightReader, WeightRecorder
from metal_gen.checkpoint.tensor_check import misfit, require_tensors
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.checkpoint.tied_head import has_own_head
from metal_gen.checkpoint.unread_tensors import is_spare_bias, require_zeros
from metal_gen.device.backend import dtype_named
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.config.language_part import WITH_OTHER_PARTS, mtp_name
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.quantized import Packing
from metal_gen.models.registry import builder_for
from metal_gen.models.transformer import Transformer

if TYPE_CHECKING:
    from metal_gen.checkpoint.adapters.adapter import Adapter

# Quantized blocks do not name the dtype that the model was trained in. bfloat16 has the range of float32,
# and Qwen's results do not always stay within the range of float16.
DTYPE_OF_BLOCKS = "bfloat16"


class WeightFiles:
    """The tensors of a checkpoint, known by their headers and checked against the model.

    Args:
        documents: Documents of the checkpoint.
        config: Configuration of the model.
        quantization: Quantization of its matrices.
        adapters: Adapters that add to its matrices or replace them.
        packing: Quantize unquantized matrices to this while they are read; None leaves them unquantized.

    Attributes:
        documents: As given.
        config: Configuration that matches the files: if they have a head of its own, it is not tied.
        tensors: Tensors by the model's names.
        adapters: Adapters by the model's names.
        mtp: Tensors for multi-token prediction, by their names in the file. They are not part of the model.
        forms: Forms in which matrices are stored and read.
        notices: Notices to the user about the weights.

    Raises:
        CheckpointError: A file is damaged; tensors are missing, unknown, of a wrong shape or of an
            unsupported dtype; or an adapter does not fit.
    """

    def __init__(
        self,
        documents: Documents,
        config: ModelConfig,
        quantization: Quantization,
        adapters: "Sequence[Adapter]" = (),
        packing: Packing | None = None,
    ) -> None:
        self.documents = documents
        found = documents.tensors()
        stored = named_as_in_model(found, config, documents.path)
        has_mtp = config.model_type in WITH_OTHER_PARTS
        self.mtp = {name: info for name, info in found.items() if has_mtp and mtp_name(name)}
        self.tensors = with_embedding(stored, config)
        self.adapters = [
            each.renamed(partial(named_as_in_model, config=config, source=each.weights_file))
            for each in adapters
        ]
        rules = None if packing is None else QuantizingRules(packing, config.model_type, self.dtype)
        self.forms = MatrixForms(self.tensors, quantization, self.adapters, rules)
        if problem := miscount(config, len(self.tensors), self.forms.shape_of):
            raise misfit(documents, problem)
        self.notices: tuple[str, ...] = ()
        if config.tie_word_embeddings and has_own_head(config, self.forms):
            config = replace(config, tie_word_embeddings=False)
            self.notices = (
                f"{documents.config_name} ties the head to the embedding, but the checkpoint also stores a "
                "different head: the stored head is used",
            )
        self.config = config
        recorder = WeightRecorder(self.forms)
        builder_for(config.model_type)(config, recorder)
        self._requests = recorder.requests
        self._parts = [part for request in self._requests for part in request.parts]
        self._expected = {name: tensor for part in self._parts for name, tensor in part.tensors().items()}
        require_tensors(documents, self.tensors, self._expected, tied=config.tie_word_embeddings)
        if self.adapters:
            from metal_gen.checkpoint.adapters.fit import require_fit

            require_fit(self.adapters, self._parts, self._expected, tied=config.tie_word_embeddings)
        self.sources = {**self.tensors, **_tensors_of(self.adapters)}

    @property
    def dtype(self) -> str:
        """The dtype of most of the stored floating-point numbers, or the best one to compute them in."""
        sizes: dict[str, int] = {}
        for info in self.tensors.values():
            dtype = DTYPE_OF_BLOCKS if info.dtype in QUANTIZED else FLOATS.get(info.dtype)
            if dtype is not None:
                sizes[dtype] = sizes.get(dtype, 0) + info.nbytes
        return max(FLOATS.values(), key=lambda dtype: sizes.get(dtype, 0))

    @property
    def is_quantized(self) -> bool:
        """Whether any matrix stays quantized in memory."""
        return bool(self.packings)

    @property
    def packings(self) -> set[Packing]:
        """Packings of the matrices that stay quantized in memory."""
        return {part.packing for part in self._parts if part.packing is not None}

    @property
    def has_products_apart(self) -> bool:
        """Whether some products are computed in parts, whose results are joined or added."""
        return any(request.is_apart for request in self._requests)

    @property
    def has_head_norms(self) -> bool:
        """Whether queries and keys are normalized."""
        return any(name.endswith(".q_norm.weight") for name in self._expected)

    @property
    def num_parameters(self) -> int:
        """Number of parameters; a tied embedding counts once."""
        return sum(math.prod(part.shape) for part in self._parts)

    def nbytes(self, dtype: str) -> int:
        """Return the bytes of the weights in memory, if unquantized numbers have this dtype."""
        return sum(request.nbytes(dtype) for request in self._requests)

    def bytes_per_token(self, dtype: str) -> int:
        """Return the bytes that one decode step reads.

        The step reads only the experts that a token goes through, and one row of the embedding. A tied
        embedding is also read completely, as the head.
        """
        config, experts = self.config, self.config.experts
        embedding, *others = self._requests
        read = embedding.nbytes(dtype) // config.vocab_size
        if config.tie_word_embeddings:
            read += embedding.nbytes(dtype)
        for request in others:
            nbytes = request.nbytes(dtype)
            if experts is not None and request.is_of_experts:
                nbytes = nbytes * experts.num_experts_per_tok // experts.num_experts
            read += nbytes
        return read

    def loading_peak_bytes(self, dtype: str) -> int:
        """Return the peak memory of `load`: the weights already read, and those being read.

        Joined parts are in memory together with the result, unless they are read at once; and so are numbers
        before and after conversion.
        """
        done = peak = 0
        for request in self._requests:
            nbytes = request.nbytes(dtype)
            beside = nbytes if request.is_copied(dtype, self.sources) else 0
            beside += max(part.reading_bytes(dtype, self.sources) for part in request.parts)
            done += nbytes
            peak = max(peak, done + beside)
        return peak

    def load(self, dtype: str) -> Transformer:
        """Read the weights and build the model.

        Args:
            dtype: `float32`, `bfloat16` or `float16`; other numbers are converted to it.

        Raises:
            CheckpointError: The contents contradict the headers.
        """
        with TensorFiles(self.sources, dtype_named(dtype)) as files:
            model = builder_for(self.config.model_type)(self.config, WeightReader(self.forms, files, dtype))
            self.require_spare_zeros(files)
        return model

    def require_spare_zeros(self, files: TensorFiles) -> None:
        """Read the biases that the model does not have, and check that they are zero.

        Raises:
            CheckpointError: A bias is not zero.
        """
        for name, info in self.tensors.items():
            if is_spare_bias(name, self._expected):
                require_zeros(info, name, files)


def _tensors_of(adapters: "Sequence[Adapter]") -> dict[str, TensorInfo]:
    """Return the tensors to read from adapters, by the names used to request them."""
    tensors: dict[str, TensorInfo] = {}
    for adapter in adapters:
        tensors.update(adapter.whole)
        tensors.update(factor_tensors([*adapter.low_ranks.values()]))
    return tensors
