"""Finds the layers for multi-token prediction (mtp) in a checkpoint, checks them, and reads them.

Published checkpoints have them among the weights. `metal-gen convert` keeps them in a file of their own,
unchanged: there, 1 has not been added to the weights of norms, whatever the model's own norms say.
"""

from collections.abc import Mapping
from dataclasses import replace

from metal_gen.checkpoint.packed.fp8 import Fp8
from metal_gen.checkpoint.packed.quantization import Quantization
from metal_gen.checkpoint.parameter_sources import WeightReader, WeightRecorder
from metal_gen.checkpoint.tensor_check import require_tensors
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.checkpoint.weights import WeightFiles
from metal_gen.device.backend import dtype_named
from metal_gen.files.safetensors_header import TensorInfo, read_header
from metal_gen.files.weight_files import MTP_FILE
from metal_gen.models.assembly import assemble_mtp
from metal_gen.models.config.language_part import WITH_OTHER_PARTS, mtp_name
from metal_gen.models.linear_attention.weights import has_norms_around_zero
from metal_gen.models.mtp import MtpHeads

# Of Qwen's own FP8 checkpoints. A converted checkpoint no longer says how the original was quantized.
FP8_SCALE, FP8_BLOCK = ".weight_scale_inv", (128, 128)


def mtp_tensors(weights: WeightFiles) -> Mapping[str, TensorInfo]:
    """Return the tensors for multi-token prediction, by their names in the file.

    They are among the weights in a published checkpoint, and in their own file in a converted one.

    Raises:
        CheckpointError: That file is damaged.
    """
    own_file = weights.documents.path / MTP_FILE
    is_possible = weights.config.model_type in WITH_OTHER_PARTS
    if weights.mtp or not is_possible or not own_file.is_file():
        return weights.mtp
    return read_header(own_file)


class MtpWeights:
    """The tensors of the layers for multi-token prediction, checked against the model.

    Args:
        weights: Weights of the checkpoint.

    Raises:
        CheckpointError: There are tensors, but some are missing, unknown, of a wrong shape or of an
            unsupported dtype.
    """

    def __init__(self, weights: WeightFiles) -> None:
        found = mtp_tensors(weights)
        self._config = weights.config
        self._tensors = {mtp_name(name) or name: info for name, info in found.items()}
        self._around_zero = not weights.mtp or has_norms_around_zero(
            weights.config, WeightRecorder(weights.forms)
        )
        quantization = weights.forms.quantization
        if quantization.method is None and any(name.endswith(FP8_SCALE) for name in found):
            quantization = Quantization(method=Fp8(FP8_BLOCK))
        self._forms = replace(weights.forms, found=self._tensors, quantization=quantization, adapters=())
        recorder = WeightRecorder(self._forms)
        if self._tensors:
            assemble_mtp(self._config, recorder, around_zero=self._around_zero)
            parts = [part for request in recorder.requests for part in request.parts]
            expected = {name: tensor for part in parts for name, tensor in part.tensors().items()}
            require_tensors(weights.documents, self._tensors, expected, tied=False)
        self._requests = recorder.requests

    def __bool__(self) -> bool:
        """Whether the checkpoint has them."""
        return bool(self._tensors)

    def nbytes(self, dtype: str) -> int:
        """Return their bytes in memory, if unquantized numbers have this dtype."""
        return sum(request.nbytes(dtype) for request in self._requests)

    def reading_bytes(self, dtype: str) -> int:
        """Return the peak memory that reading them takes in addition."""
        return max(
            (request.nbytes(dtype) if request.is_copied(dtype, self._tensors) else 0)
            + max(part.reading_bytes(dtype, self._tensors) for part in request.parts)
            for request in self._requests
        )

    def load(self, dtype: str) -> MtpHeads:
        """Read them.

        Args:
            dtype: Dtype of computation, as for the model's own weights.

        Raises:
            CheckpointError: The contents contradict the headers.
        """
        with TensorFiles(self._tensors, dtype_named(dtype)) as files:
            reader = WeightReader(self._forms, files, dtype)
            return assemble_mtp(self._config, reader, around_zero=self._around_zero)
