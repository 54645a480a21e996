"""The attention of one new token per sequence: norm and rotation of heads, the write to the cache, attention.

A group of threads takes one key/value head of one sequence, or a stretch of its positions, with all query
heads that share it. Each row of 32 lanes takes some of the positions; a lane holds a part of each head. The
results of the rows, and then those of the stretches, are weighed by their sums (as in arXiv 2205.14135).

The kernel writes into the buffers of the cache, which are its inputs. MLX does not know of such a write and
replaces no array, so it never copies a buffer that an earlier step still uses. The order is safe: each step
takes the token of the step before. Whoever else uses the buffers has to wait for the last step first
(`KVCache.settle`).

Axes: B sequences, H query heads, G key/value heads, D head size, S capacity, P stretches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.device.backend import runs_on_metal
from metal_gen.models.kernels.dialect import LANES, Code, Size

# Positions whose keys a row of lanes loads before it needs them.
AT_ONCE = 4
# Numbers of queries that a lane holds, and numbers in the memory of a group: what all devices have.
MOST_NUMBERS, MOST_SHARED = 64, 4096
MOST_ROWS = 16
# So few positions are not worth a second kernel, which joins stretches.
ONE_STRETCH = 256
# Groups that keep a large GPU busy, fewest positions of a stretch, and most stretches of a sequence. Metal's
# GPUs have fewer cores.
ENOUGH_GROUPS, SHORTEST_STRETCH = 256, 128
MOST_STRETCHES, MOST_ON_METAL = 32, 8

# T is the dtype of the rows, C that of the cache. QUERIES (of each key/value head), G, D, ROTATED, GATED,
# NORMED, ROWS and WINDOW (0 for none) are known when compiling. `counts` holds S and P.
BODY = """
    constexpr int E = D / 32, HALF = ROTATED / 2, APART = HALF / E, AT_ONCE = 4;
    constexpr float LEAST = -1e30f;
    struct alignas(sizeof(C) * E) Numbers { C of[E]; };
    const int capacity = counts[0], stretches = counts[1];
    const int head = across / ROWS, text = beyond, position = positions[text], total = position + 1;
    const int start = WINDOW && total > WINDOW ? total - WINDOW : 0;
    int length = (total - start + stretches - 1) / stretches;
    length = length < ROWS * AT_ONCE ? ROWS * AT_ONCE : length;
    const int begin = start + group * length, end = total < begin + length ? total : begin + length;
    const int width = ((GATED ? 2 : 1) * QUERIES + 2) * G * D, first_key = (GATED ? 2 : 1) * QUERIES * G;

    float cosines[E], sines[E];
    for (int e = 0; e < E; ++e) {
        const int i = lane * E + e;
        const float angle = i < ROTATED ? float(position) * (1.0f / periods[i % HALF]) : 0.0f;
        cosines[e] = cosine(angle);
        sines[e] = i < HALF ? -sine(angle) : sine(angle);
    }
    float query[QUERIES][E], key[E], value[E];
    for (int q = 0; q <= QUERIES; ++q) {
        const int of_row = q < QUERIES ? (GATED ? 2 : 1) * (head * QUERIES + q) : first_key + head;
        float x[E], squares = 0.0f;
        for (int e = 0; e < E; ++e) {
            x[e] = float(rows[text * width + of_row * D + lane * E + e]);
            squares += x[e] * x[e];
        }
        if (NORMED) {
            const float scale = inverse_root(sum_of_lanes(squares) / D + factors[0]);
            for (int e = 0; e < E; ++e) {
                const float weight = float(q < QUERIES ? query_weight[lane * E + e] : key_weight[lane * E + e]);
                x[e] = float(T(float(T(x[e] * scale)) * weight));
            }
        }
        for (int e = 0; e < E; ++e) {
            const float turned = float(C(float(T(x[e] * cosines[e] + other_lane(x[e], APART) * sines[e]))));
            if (q < QUERIES) query[q][e] = turned * factors[1];
            else key[e] = turned;
        }
    }
    for (int e = 0; e < E; ++e)
        value[e] = float(C(float(rows[text * width + (first_key + G + head) * D + lane * E + e])));
    DEVICE C* const key_row = (DEVICE C*)keys + (size_t(text) * G + head) * capacity * D + lane * E;
    DEVICE C* const value_row = (DEVICE C*)values + (size_t(text) * G + head) * capacity * D + lane * E;
    if (row == 0 && begin < total && end == total)
        for (int e = 0; e < E; ++e) {
            key_row[size_t(position) * D + e] = C(key[e]);
            value_row[size_t(position) * D + e] = C(value[e]);
        }

    float largest[QUERIES], sum[QUERIES], kept[QUERIES][E];
    for (int q = 0; q < QUERIES; ++q) {
        largest[q] = LEAST;
        sum[q] = 0.0f;
        for (int e = 0; e < E; ++e) kept[q][e] = 0.0f;
    }
    for (int place = begin + row * AT_ONCE; place < end; place += ROWS * AT_ONCE) {
        float score[QUERIES][AT_ONCE];
        Numbers loaded[AT_ONCE];
        int near[AT_ONCE];  // What is not in the cache is not read.
        for (int u = 0; u < AT_ONCE; ++u) near[u] = place + u < position ? place + u : 0;
        for (int u = 0; u < AT_ONCE; ++u)
            loaded[u] = *(const DEVICE Numbers*)(key_row + size_t(near[u]) * D);
        for (int u = 0; u < AT_ONCE; ++u)
            for (int q = 0; q < QUERIES; ++q) {
                float product = 0.0f;
                for (int e = 0; e < E; ++e)
                    product += query[q][e] * (place + u == position ? key[e] : float(loaded[u].of[e]));
                product = sum_of_lanes(product);
                score[q][u] = place + u < end ? product : LEAST;
            }
        for (int u = 0; u < AT_ONCE; ++u)
            loaded[u] = *(const DEVICE Numbers*)(value_row + size_t(near[u]) * D);
        for (int q = 0; q < QUERIES; ++q) {
            float most = largest[q];
            for (int u = 0; u < AT_ONCE; ++u) most = score[q][u] > most ? score[q][u] : most;
            const float fading = power_of_two(largest[q] - most);
            largest[q] = most;
            sum[q] *= fading;
            for (int e = 0; e < E; ++e) kept[q][e] *= fading;
            for (int u = 0; u < AT_ONCE; ++u) {
                const float weight = power_of_two(score[q][u] - most);
                sum[q] += weight;
                for (int e = 0; e < E; ++e)
                    kept[q][e] += weight * (place + u == position ? value[e] : float(loaded[u].of[e]));
            }
        }
    }

    SHARED float all_largest[ROWS * QUERIES];
    SHARED float all_sums[ROWS * QUERIES];
    SHARED float all_kept[ROWS * QUERIES * D];
    for (int q = 0; q < QUERIES; ++q) {
        if (lane == 0) {
            all_largest[row * QUERIES + q] = largest[q];
            all_sums[row * QUERIES + q] = sum[q];
        }
        for (int e = 0; e < E; ++e) all_kept[(row * QUERIES + q) * D + lane * E + e] = kept[q][e];
    }
    WAIT_FOR_GROUP;
    for (int i = row * 32 + lane; i < QUERIES * D; i += ROWS * 32) {
        const int q = i / D;
        float most = LEAST, all = 0.0f, joined = 0.0f;
        for (int r = 0; r < ROWS; ++r) {
            const float theirs = all_largest[r * QUERIES + q];
            most = theirs > most ? theirs : most;
        }
        for (int r = 0; r < ROWS; ++r) {
            const float factor = power_of_two(all_largest[r * QUERIES + q] - most);
            all += factor * all_sums[r * QUERIES + q];
            joined += factor * all_kept[(r * QUERIES + q) * D + i % D];
        }
        GIVE
    }
"""
# With one stretch, the result; otherwise what `JOIN` needs of it.
WHOLE = "attended[(text * G + head) * QUERIES * D + i] = T(joined / all);"
PART = """
        const int place = (text * G + head) * stretches + group;
        joined_parts[size_t(place) * QUERIES * D + i] = joined;
        if (i % D == 0) {
            shares[(place * QUERIES + q) * 2] = most;
            shares[(place * QUERIES + q) * 2 + 1] = all;
        }
"""
JOIN = """
    const int head = across / QUERIES, q = across % QUERIES, stretches = counts[1];
    const int first = (beyond * G + head) * stretches;
    float most = -1e30f, all = 0.0f, joined = 0.0f;
    for (int p = 0; p < stretches; ++p) {
        const float theirs = shares[((first + p) * QUERIES + q) * 2];
        most = theirs > most ? theirs : most;
    }
    for (int p = 0; p < stretches; ++p) {
        const int place = (first + p) * QUERIES + q;
        const float factor = power_of_two(shares[place * 2] - most);
        all += factor * shares[place * 2 + 1];
        joined += factor * joined_parts[size_t(place) * D + lane];
    }
    attended[(beyond * G * QUERIES + across) * D + lane] = T(joined / all);
"""
_INPUTS = (
    "rows",
    "query_weight",
    "key_weight",
    "factors",
    "periods",
    "positions",
    "counts",
    "keys",
    "values",
)
WHOLE_CODE = Code("attend", _INPUTS, ("attended",), BODY.replace("GIVE", WHOLE))
PART_CODE = Code("attend_part", _INPUTS, ("joined_parts", "shares"), BODY.replace("GIVE", PART))
JOIN_CODE = Code("attend_join", ("joined_parts", "shares", "counts"), ("attended",), JOIN)


@dataclass(frozen=True)
class Heads:
    """What the kernel is compiled for.

    Attributes:
        num_heads: H.
        num_kv_heads: G.
        head_dim: D.
        rotated: Number of rotated numbers in each head.
        gated: A gate follows each query head in the rows.
        normed: Queries and keys are normalised.
        window: Number of positions that a token sees, with itself; None for all.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotated: int
    gated: bool
    normed: bool
    window: int | None

    @property
    def queries(self) -> int:
        """Number of query heads that share a key/value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def are_supported(self) -> bool:
        """Whether the kernel works for these sizes."""
        half, numbers = self.rotated // 2, self.head_dim // LANES
        if self.head_dim % LANES or numbers not in (1, 2, 4, 8) or self.rotated % 2 or half % numbers:
            return False
        apart = half // numbers
        fits = self.queries * numbers <= MOST_NUMBERS and self.queries * self.head_dim <= MOST_SHARED
        return fits and apart in (1, 2, 4, 8, 16)

    @property
    def rows(self) -> int:
        """Rows of lanes in a group."""
        rows = MOST_ROWS
        while rows * self.queries * self.head_dim > MOST_SHARED:
            rows //= 2
        return rows

    def stretches(self, length: int, batch: int) -> int:
        """Return into how many stretches to part positions that are at most so many."""
        if length <= ONE_STRETCH:
            return 1
        most = min(MOST_ON_METAL if runs_on_metal() else MOST_STRETCHES, length // SHORTEST_STRETCH)
        return max(2, min(most, ENOUGH_GROUPS // (self.num_kv_heads * batch)))


def attend(
    heads: Heads,
    rows: mx.array,
    weights: Sequence[mx.array],
    factors: mx.array,
    periods: mx.array,
    positions: mx.array,
    counts: mx.array,
    stretches: int,
    buffers: Sequence[mx.array],
) -> mx.array:
    """Write the keys and values of one new token of each sequence, and attend with its queries.

    Args:
        heads: The heads.
        rows: Projections, (B, H D, then 2 G D) in turn: queries with their gates, keys, values.
        weights: Norm weights of queries and keys, (D,) each in the rows' dtype; not read without a norm.
        factors: Constant of the norm; and factor of the scores, with log2(e), (2,) float32.
        periods: Periods of the rotary embedding, float32.
        positions: Position of each token, (B,) int32.
        counts: S and P, (2,) int32.
        stretches: P.
        buffers: Keys and values, (B, G, S, D) each.

    Returns:
        (B, H D) in the dtype of the rows.
    """
    batch, size = rows.shape[0], heads.head_dim
    sizes: dict[str, Size] = {"T": rows.dtype, "QUERIES": heads.queries, "G": heads.num_kv_heads, "D": size}
    more: dict[str, Size] = {
        "C": buffers[0].dtype,
        "ROTATED": heads.rotated,
        "GATED": int(heads.gated),
        "NORMED": int(heads.normed),
        "ROWS": heads.rows,
        "WINDOW": heads.window or 0,
    }
    inputs = [rows, *weights, factors, periods, positions, counts, *buffers]
    grid = (LANES * stretches, heads.rows * heads.num_kv_heads, batch)
    group = (LANES, heads.rows, 1)
    result = ((batch, heads.num_heads * size), rows.dtype)
    if stretches == 1:
        return WHOLE_CODE(inputs, [result], sizes=sizes | more, grid=grid, group=group)[0]
    places = (batch, heads.num_kv_heads, stretches, heads.queries)
    parts = PART_CODE(
        inputs,
        [((*places, size), mx.float32), ((*places, 2), mx.float32)],
        sizes=sizes | more,
        grid=grid,
        group=group,
    )
    return JOIN_CODE(
        [*parts, counts], [result], sizes=sizes, grid=(size, heads.num_heads, batch), group=(size, 1, 1)
    )[0]
