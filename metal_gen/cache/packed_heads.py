"""Keys or values in 8 bits: whole numbers, with a scale and a bias for each group of a head.

Axes: B sequences, H key/value heads, S positions, D head size.
"""

from dataclasses import dataclass, field

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu

GROUP_SIZE, BITS = 64, 8
NUMBERS_IN_A_WORD = 32 // BITS
Index = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class PackedHeads:
    """Keys or values of some sequences, packed as `mx.quantize` does.

    Args:
        numbers: Four 8-bit numbers in a word, (B, H, S, D / 4).
        scales: Scale of each group of 64 numbers, (B, H, S, D / 64), in float32: in half precision, its
            rounding would be as wrong as 8 bits are.
        biases: What the number 0 stands for in each group, in the same form.
    """

    numbers: mx.array
    scales: mx.array
    biases: mx.array
    _by_sequences: dict[tuple[int | None, int | None], list[mx.array]] = field(default_factory=dict)
    _longest: list[mx.array] = field(default_factory=list)

    @property
    def arrays(self) -> tuple[mx.array, mx.array, mx.array]:
        """Numbers, scales and biases."""
        return self.numbers, self.scales, self.biases

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the numbers that it stands for, (B, H, S, D)."""
        batch, heads, length, words = self.numbers.shape
        return batch, heads, length, words * NUMBERS_IN_A_WORD

    def __getitem__(self, index: Index) -> "PackedHeads":
        """Return some sequences, heads and positions."""
        sequences, heads, positions = index
        is_beginning = heads == slice(None) and positions.start is None
        place = (sequences.start, sequences.stop)
        longest = self._by_sequences.setdefault(place, []) if is_beginning else []
        return PackedHeads(self.numbers[index], self.scales[index], self.biases[index], {}, longest)

    def in_stretches(self, length: int) -> "PackedHeads":
        """Return positions in stretches of this length, (B, H, S / length, length, D)."""
        numbers, scales, biases = (mx.unflatten(array, 2, (-1, length)) for array in self.arrays)
        return PackedHeads(numbers, scales, biases)

    def unpacked(self, dtype: mx.Dtype) -> mx.array:
        """Return the numbers that it stands for, (B, H, S, D).

        Beginnings of the same sequences share what was unpacked for the longest, if that is asked for first.
        """
        length = self.numbers.shape[2]
        if not self._longest or self._longest[0].shape[2] < length:
            self._longest[:] = [self._in_float32().astype(dtype)]
        return self._longest[0][:, :, :length]

    def _in_float32(self) -> mx.array:
        if not runs_on_cpu():
            return mx.dequantize(*self.arrays, group_size=GROUP_SIZE, bits=BITS)
        # On a CPU, `mx.dequantize` takes twice the memory of its result.
        numbers = mx.unflatten(self.numbers.view(mx.uint8), -1, (-1, GROUP_SIZE)).astype(mx.float32)
        return (numbers * self.scales[..., None] + self.biases[..., None]).reshape(self.shape)
