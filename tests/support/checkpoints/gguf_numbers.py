"""Makes random blocks of a GGUF file, and their values in float64.

Block layouts are those of `ggml-common.h` and `ggml-quants.c` of llama.cpp, written down number by number.
"""

import numpy as np

# Number of the type, numbers and bytes of a block, and offsets of its float16 numbers.
BLOCKS = {
    "F32": (0, 1, 4, ()), "F16": (1, 1, 2, ()), "BF16": (30, 1, 2, ()),
    "Q4_0": (2, 32, 18, (0,)), "Q4_1": (3, 32, 20, (0, 2)), "Q5_0": (6, 32, 22, (0,)),
    "Q5_1": (7, 32, 24, (0, 2)), "Q8_0": (8, 32, 34, (0,)), "Q4_K": (12, 256, 144, (0, 2)),
    "Q5_K": (13, 256, 176, (0, 2)), "Q6_K": (14, 256, 210, (208,)), "Q2_K": (10, 256, 84, (80, 82)),
    "Q3_K": (11, 256, 110, (108,)), "IQ4_NL": (20, 32, 18, (0,)), "IQ4_XS": (23, 256, 136, (0,)),
    "MXFP4": (39, 32, 17, ()), "IQ3_S": (21, 256, 110, (0,)),
}  # fmt: skip
# Factors that make numbers about as large as a model's.
STEPS = {
    "Q8_0": 5e-4, "Q2_K": 2e-3, "Q3_K": 6e-4, "Q4_K": 1e-4, "Q5_K": 5e-5, "Q6_K": 2e-5,
    "IQ4_NL": 1e-3, "IQ4_XS": 5e-5,
}  # fmt: skip
IQ4_TABLE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def random_blocks(kind, shape, seed):
    """Return blocks (rows, bytes) uint8 with random bits, except those of scales."""
    _, numbers, nbytes, halves = BLOCKS[kind]
    random = np.random.RandomState(seed)
    count = int(np.prod(shape)) // numbers
    blocks = random.randint(0, 256, (count, nbytes)).astype(np.uint8)
    for place in halves:
        scales = STEPS.get(kind, 5e-3) * random.uniform(0.5, 1.5, (count, 1))
        blocks[:, place : place + 2] = scales.astype(np.float16).view(np.uint8)
    if kind == "MXFP4":
        blocks[:, 0] = random.randint(119, 123, count)
    return blocks


def numbers_in(kind, blocks):
    """Return the values of blocks (N, bytes), (N, numbers) in float64."""

    def half(place):
        return blocks[:, place : place + 2].copy().view(np.float16).astype(np.float64)

    def nibble(at, index):
        return blocks[:, at + index % 16] >> (4 if index >= 16 else 0) & 15

    def bit(at, index):
        return blocks[:, at + index // 8] >> (index % 8) & 1

    if kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        at = 4 if kind.endswith("1") else 2
        values = [nibble(at if kind < "Q5" else at + 4, index).astype(int) for index in range(32)]
        if kind > "Q5":
            values = [value + 16 * bit(at, index).astype(int) for index, value in enumerate(values)]
        q = np.stack(values, axis=1)
        return half(0) * q + half(2) if kind.endswith("1") else half(0) * (q - (8 if kind < "Q5" else 16))
    if kind == "Q8_0":
        return half(0) * blocks[:, 2:].view(np.int8)
    if kind in ("Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4"):
        return np.stack([NUMBER_OF[kind](blocks.astype(int), i) for i in range(BLOCKS[kind][1])], axis=1)
    columns = []
    for index in range(256):
        if kind == "Q6_K":
            columns.append(half(208)[:, 0] * q6_number(blocks, index))
            continue
        group, lower = index // 32, index % 32
        at = 16 if kind == "Q4_K" else 48
        q = (blocks[:, at + group // 2 * 32 + lower] >> (4 * (group % 2)) & 15).astype(int)
        if kind == "Q5_K":
            q = q + 16 * (blocks[:, 16 + lower] >> group & 1).astype(int)
        scale, minimum = k_scale(blocks[:, 4:16].astype(int), group)
        columns.append(half(0)[:, 0] * scale * q - half(2)[:, 0] * minimum)
    return np.stack(columns, axis=1)


def k_scale(bytes12, group):
    """`get_scale_min_k4` of llama.cpp."""
    if group < 4:
        return bytes12[:, group] & 63, bytes12[:, group + 4] & 63
    rest = bytes12[:, group + 4]
    return (
        (rest & 15) | (bytes12[:, group - 4] >> 6) << 4,
        (rest >> 4) | (bytes12[:, group] >> 6) << 4,
    )


def q6_number(blocks, index):
    """A number without the block's scale: `dequantize_row_q6_K` of llama.cpp."""
    part, place = divmod(index, 128)
    quarter, lower = divmod(place, 32)
    low = blocks[:, 64 * part + 32 * (quarter % 2) + lower] >> (4 * (quarter // 2)) & 15
    high = blocks[:, 128 + 32 * part + lower] >> (2 * quarter) & 3
    scale = blocks[:, 192 + 8 * part + 2 * quarter + lower // 16].view(np.int8).astype(int)
    return scale * ((low | high << 4).astype(int) - 32)


def half_at(blocks, place):
    """Return the float16 at these two bytes."""
    words = (blocks[:, place] | blocks[:, place + 1] << 8).astype(np.uint16)
    return words.view(np.float16).astype(np.float64)


def q2_number(blocks, index):
    """`dequantize_row_q2_K` of llama.cpp."""
    part, place = divmod(index, 128)
    q = blocks[:, 16 + 32 * part + place % 32] >> (2 * (place // 32)) & 3
    group = blocks[:, index // 16]
    return half_at(blocks, 80) * (group & 15) * q - half_at(blocks, 82) * (group >> 4)


def q3_number(blocks, index):
    """`dequantize_row_q3_K` of llama.cpp."""
    part, place = divmod(index, 128)
    low = blocks[:, 32 + 32 * part + place % 32] >> (2 * (place // 32)) & 3
    is_high = blocks[:, place % 32] >> (4 * part + place // 32) & 1
    group = index // 16
    scale = blocks[:, 96 + group % 8] >> (4 * (group // 8)) & 15
    scale = scale | (blocks[:, 104 + group % 4] >> (2 * (group // 4)) & 3) << 4
    return half_at(blocks, 108) * (scale - 32) * np.where(is_high, low, low - 4)


def iq4_number(blocks, index, at=2):
    """`dequantize_row_iq4_nl` of llama.cpp, without the scale of IQ4_XS."""
    place = blocks[:, at + index % 16] >> (4 if index % 32 >= 16 else 0) & 15
    return half_at(blocks, 0) * np.array(IQ4_TABLE)[place]


def iq4_xs_number(blocks, index):
    """`dequantize_row_iq4_xs` of llama.cpp."""
    group = index // 32
    scale = blocks[:, 4 + group // 2] >> (4 * (group % 2)) & 15
    scale = scale | ((blocks[:, 2] | blocks[:, 3] << 8) >> (2 * group) & 3) << 4
    return (scale - 32) * iq4_number(blocks, index, at=8 + 16 * group)


def mxfp4_number(blocks, index):
    """`dequantize_row_mxfp4` of llama.cpp: a sign, two bits of an exponent, one of a fraction."""
    code = blocks[:, 1 + index % 16] >> (4 if index >= 16 else 0) & 15
    return np.where(code > 7, -1, 1) * np.array(FP4)[code & 7] * 2.0 ** (blocks[:, 0] - 127)


NUMBER_OF = {
    "Q2_K": q2_number,
    "Q3_K": q3_number,
    "IQ4_NL": iq4_number,
    "IQ4_XS": iq4_xs_number,
    "MXFP4": mxfp4_number,
}
