"""The attention of new tokens, one per sequence: norm and rotation of heads, write to the cache, attention.

A group of threads takes one key/value head of one sequence, or a stretch of its positions, with all query
heads that share it. Each row of 32 lanes takes some of the positions; a lane holds a part of each head. The
results of the rows, and then those of the stretches, are weighed by their sums (as in arXiv 2205.14135).

The kernel writes into the buffers of the cache, which are its inputs. MLX does not know of such a write and
replaces no array, so it never copies a buffer that an earlier step still uses. The order is safe: each step
takes the token of the step before. Whoever else uses the buffers has to wait for the last step first
(`KVCache.settle`).

The new tokens may also be successive tokens of one text. Then a first run writes all keys and values, and a
second one, which takes a result of the first, attends.

Axes: B sequences, H query heads, G key/value heads, D head size, S capacity, P stretches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.models.kernels.dialect import LANES, Code, Size
from metal_gen.models.kernels.heads import Heads

# T is the dtype of the rows, C that of the cache. QUERIES (of each key/value head), G, D, ROTATED, GATED,
# NORMED, ROWS and WINDOW (0 for none) are known when compiling. `counts` holds S, P, what to do, and whether
# the tokens are those of one text: at each start of the program, CUDA compiles a source for seconds, so one
# source does everything.
BODY = """
    if (counts[2] == TO_JOIN) {
        const int of_kv = across / QUERIES, q = across % QUERIES;
        const int first = (beyond * G + of_kv) * counts[1];
        float most = -1e30f, all = 0.0f, joined = 0.0f;
        for (int p = 0; p < counts[1]; ++p) {
            const float theirs = shares[((first + p) * QUERIES + q) * 2];
            most = theirs > most ? theirs : most;
        }
        for (int p = 0; p < counts[1]; ++p) {
            const int place = (first + p) * QUERIES + q;
            const float factor = power_of_two(shares[place * 2] - most);
            all += factor * shares[place * 2 + 1];
            joined += factor * parts[size_t(place) * D + lane];
        }
        attended[(beyond * G * QUERIES + across) * D + lane] = T(joined / all);
        return;
    }
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
                const int place = lane * E + e;
                const float weight = float(q < QUERIES ? query_weight[place] : key_weight[place]);
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
    const size_t of_cache = (size_t(counts[3] ? 0 : text) * G + head) * capacity * D + lane * E;
    DEVICE C* const key_row = (DEVICE C*)keys + of_cache;
    DEVICE C* const value_row = (DEVICE C*)values + of_cache;
    const bool is_written = counts[3] && counts[2] != TO_WRITE;
    if (row == 0 && begin < total && end == total && !is_written)
        for (int e = 0; e < E; ++e) {
            key_row[size_t(position) * D + e] = C(key[e]);
            value_row[size_t(position) * D + e] = C(value[e]);
        }
    if (counts[2] == TO_WRITE) return;

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
        if (counts[2] == TO_FINISH) {
            attended[(text * G + head) * QUERIES * D + i] = T(joined / all);
            continue;
        }
        const int place = (text * G + head) * stretches + group;
        new_parts[size_t(place) * QUERIES * D + i] = joined;
        if (i % D == 0) {
            new_shares[(place * QUERIES + q) * 2] = most;
            new_shares[(place * QUERIES + q) * 2 + 1] = all;
        }
    }
"""
# Attend to all positions; attend to a stretch of them; join stretches; write keys and values alone.
TO_FINISH, TO_PART, TO_JOIN, TO_WRITE = 0, 1, 2, 3
CODE = Code(
    name="attend",
    inputs=(
        *("rows", "query_weight", "key_weight", "factors", "periods", "positions", "counts"),
        *("keys", "values", "parts", "shares"),
    ),
    outputs=("attended", "new_parts", "new_shares"),
    body=BODY,
)


@dataclass(frozen=True)
class Counts:
    """Numbers that the kernel reads when it runs.

    Attributes:
        stretches: P.
        attend: S, P, what to do, and whether all tokens are of one text, (4,) int32.
        join: The same, for what to do then.
        write: The same, for what to do before; None to write and attend at once.
    """

    stretches: int
    attend: mx.array
    join: mx.array
    write: mx.array | None = None

    @classmethod
    def of(cls, capacity: int, stretches: int, *, is_one_text: bool = False) -> "Counts":
        """Return the numbers for a cache of this capacity.

        Args:
            capacity: S.
            stretches: P.
            is_one_text: The tokens are successive tokens of one text, rather than one of each sequence.
        """

        def numbers(stretches: int, what: int) -> mx.array:
            return mx.array([capacity, stretches, what, int(is_one_text)], mx.int32)

        attend = numbers(stretches, TO_FINISH if stretches == 1 else TO_PART)
        write = numbers(1, TO_WRITE) if is_one_text else None
        return cls(stretches, attend, numbers(stretches, TO_JOIN), write)


def attend(
    heads: Heads,
    rows: mx.array,
    weights: Sequence[mx.array],
    factors: mx.array,
    periods: mx.array,
    positions: mx.array,
    counts: Counts,
    buffers: Sequence[mx.array],
) -> mx.array:
    """Write the keys and values of new tokens, and attend with their queries.

    Args:
        heads: The heads.
        rows: Projections, (B, H D, then 2 G D) in turn: queries with their gates, keys, values. B counts the
            tokens if they are those of one text.
        weights: Norm weights of queries and keys, (D,) each in the rows' dtype; not read without a norm.
        factors: Constant of the norm; and factor of the scores, with log2(e), (2,) float32.
        periods: Periods of the rotary embedding, float32.
        positions: Position of each token, (B,) int32.
        counts: Numbers of the cache.
        buffers: Keys and values, (B, G, S, D) each.

    Returns:
        (B, H D) in the dtype of the rows.
    """
    batch, size = rows.shape[0], heads.head_dim
    sizes: dict[str, Size] = {
        "T": rows.dtype,
        "C": buffers[0].dtype,
        "QUERIES": heads.queries,
        "G": heads.num_kv_heads,
        "D": size,
        "ROTATED": heads.rotated,
        "GATED": int(heads.gated),
        "NORMED": int(heads.normed),
        "ROWS": heads.rows,
        "WINDOW": heads.window or 0,
        "TO_FINISH": TO_FINISH,
        "TO_JOIN": TO_JOIN,
        "TO_WRITE": TO_WRITE,
    }
    given = [rows, *weights, factors, periods, positions]
    result, nothing = ((batch, heads.num_heads * size), rows.dtype), ((1,), mx.float32)
    across = heads.rows * heads.num_kv_heads
    grid, group = (LANES * counts.stretches, across, batch), (LANES, heads.rows, 1)
    before = factors
    if counts.write is not None:
        few = ((1,), rows.dtype)
        # What attends takes a result of this, so that it comes later.
        _, before, _ = CODE(
            [*given, counts.write, *buffers, factors, factors],
            [few, nothing, nothing],
            sizes=sizes,
            grid=(LANES, across, batch),
            group=group,
        )
    if counts.stretches == 1:
        inputs = [*given, counts.attend, *buffers, before, factors]
        return CODE(inputs, [result, nothing, nothing], sizes=sizes, grid=grid, group=group)[0]
    places = (batch, heads.num_kv_heads, counts.stretches, heads.queries)
    _, *parts = CODE(
        [*given, counts.attend, *buffers, before, factors],
        [((1,), rows.dtype), ((*places, size), mx.float32), ((*places, 2), mx.float32)],
        sizes=sizes,
        grid=grid,
        group=group,
    )
    return CODE(
        [*given, counts.join, *buffers, *parts],
        [result, nothing, nothing],
        sizes=sizes,
        grid=(size, heads.num_heads, batch),
        group=(size, 1, 1),
    )[0]
