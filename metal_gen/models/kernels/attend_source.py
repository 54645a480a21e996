"""The source of the kernel for the attention of new tokens.

It has to be short: between two calls, the weights of a layer push it out of the caches of a GPU, and code
that runs once takes the time to read it. So loops over heads are not unrolled, and each head is normalized
once, by one row of lanes.

Axes: as in `attend`.
"""

from metal_gen.models.kernels.dialect import Code

# T is the dtype of the rows, C that of the cache. QUERIES (of each key/value head), G, D, ROTATED, GATED,
# NORMED, ROWS, EACH (numbers of a head that a lane holds), AT_ONCE (positions that a lane loads at once),
# MOST_STRETCHES and WINDOW (0 for none) are known when compiling. `job` holds whether the tokens are those of
# one text, and whether to write their keys and values alone. With `parts`, stretches are joined. At each
# start of the program, CUDA compiles a source for seconds, so one source does everything.
BODY = """
    constexpr float LEAST = -1e30f;
    constexpr int OF_ROWS = ROWS * QUERIES * 2, SHARES = OF_ROWS < MOST_STRETCHES ? MOST_STRETCHES : OF_ROWS;
    SHARED float shared_numbers[ROWS * QUERIES * D];
    SHARED float shared_shares[SHARES];
    if (parts_ndim > 1) {
        const int stretches = parts_shape[2], q = across % QUERIES;
        const int first = (beyond * G + across / QUERIES) * stretches;
        float most = LEAST, all = 0.0f, joined = 0.0f;
        for (int p = lane % 32; p < stretches; p += 32) {
            const float theirs = shares[((first + p) * QUERIES + q) * 2];
            most = theirs > most ? theirs : most;
        }
        for (int apart = 1; apart < 32; apart *= 2) {
            const float theirs = other_lane(most, apart);
            most = theirs > most ? theirs : most;
        }
        for (int p = lane % 32; p < stretches; p += 32) {
            const int place = ((first + p) * QUERIES + q) * 2;
            const float factor = power_of_two(shares[place] - most);
            all += factor * shares[place + 1];
            if (lane < 32) shared_shares[p] = factor;
        }
        all = sum_of_lanes(all);
        WAIT_FOR_GROUP;
        for (int p = 0; p < stretches; ++p)
            joined += shared_shares[p] * parts[size_t((first + p) * QUERIES + q) * D + lane];
        attended[(beyond * G * QUERIES + across) * D + lane] = T(joined / all);
        return;
    }
    constexpr int LANES_OF = D / EACH, TOGETHER = 32 / LANES_OF, STEP = ROWS * TOGETHER * AT_ONCE;
    constexpr int SOME = D / 32, HALF = ROTATED / 2, APART = HALF / SOME;
    constexpr int FIRST_KEY = (GATED ? 2 : 1) * QUERIES * G, WIDTH = (FIRST_KEY + 2 * G) * D;
    struct alignas(sizeof(C) * EACH < 16 ? sizeof(C) * EACH : 16) Numbers { C of[EACH]; };
    const int head = across / ROWS, text = beyond, position = positions[text], total = position + 1;
    const bool is_one_text = job[0], only_writes = job[1];
    const int start = WINDOW && total > WINDOW ? total - WINDOW : 0;
    int length = (total - start + groups - 1) / groups;
    length = length < STEP ? STEP : length;
    const int begin = start + group * length, end = total < begin + length ? total : begin + length;
    const bool writes = begin < total && end == total && is_one_text == only_writes;
    const size_t of_cache = (size_t(is_one_text ? 0 : text) * G + head) * keys_shape[2] * D;
    DEVICE C* const key_row = (DEVICE C*)keys + of_cache;
    DEVICE C* const value_row = (DEVICE C*)values + of_cache;

    // Queries, then the key and the value.
    #pragma unroll 1
    for (int h = row; h < QUERIES + 2; h += ROWS) {
        const int of_query = (GATED ? 2 : 1) * (head * QUERIES + h);
        const int of_other = FIRST_KEY + (h - QUERIES) * G + head;
        float x[SOME], squares = 0.0f;
        for (int e = 0; e < SOME; ++e) {
            x[e] = float(rows[text * WIDTH + (h < QUERIES ? of_query : of_other) * D + lane * SOME + e]);
            squares += x[e] * x[e];
        }
        if (h > QUERIES) {
            for (int e = 0; e < SOME && writes; ++e)
                value_row[size_t(position) * D + lane * SOME + e] = C(x[e]);
            continue;
        }
        if (NORMED) {
            const float scale = inverse_root(sum_of_lanes(squares) / D + factors[0]);
            for (int e = 0; e < SOME; ++e) {
                const int i = lane * SOME + e;
                const float weight = float(h < QUERIES ? query_weight[i] : key_weight[i]);
                x[e] = float(T(float(T(x[e] * scale)) * weight));
            }
        }
        for (int e = 0; e < SOME; ++e) {
            const int i = lane * SOME + e;
            const float angle = i < ROTATED ? float(position) * (1.0f / periods[i % HALF]) : 0.0f;
            const float sine_of = i < HALF ? -sine(angle) : sine(angle);
            const C turned = C(float(T(x[e] * cosine(angle) + other_lane(x[e], APART) * sine_of)));
            if (h < QUERIES) shared_numbers[h * D + i] = float(turned) * factors[1];
            else if (writes) key_row[size_t(position) * D + i] = turned;
        }
    }
    if (only_writes) return;
    WAIT_FOR_GROUP;

    const int part = lane / LANES_OF, from = lane % LANES_OF * EACH;
    float query[QUERIES][EACH], largest[QUERIES], sum[QUERIES], kept[QUERIES][EACH];
    for (int q = 0; q < QUERIES; ++q) {
        largest[q] = LEAST;
        sum[q] = 0.0f;
        for (int e = 0; e < EACH; ++e) {
            query[q][e] = shared_numbers[q * D + from + e];
            kept[q][e] = 0.0f;
        }
    }
    WAIT_FOR_GROUP;
    // What is not in the stretch is not read.
    Numbers key[AT_ONCE], value[AT_ONCE], next_key[AT_ONCE], next_value[AT_ONCE];
    const int of_row = begin + row * TOGETHER * AT_ONCE;
    for (int u = 0; u < AT_ONCE; ++u) {
        const int place = of_row + part * AT_ONCE + u;
        const size_t there = size_t(place < end ? place : 0) * D + from;
        key[u] = *(const DEVICE Numbers*)(key_row + there);
        value[u] = *(const DEVICE Numbers*)(value_row + there);
    }
    #pragma unroll 1
    for (int first = of_row; first < end; first += STEP) {
        const int place = first + part * AT_ONCE;
        for (int u = 0; u < AT_ONCE; ++u) {
            const size_t there = size_t(place + STEP + u < end ? place + STEP + u : 0) * D + from;
            next_key[u] = *(const DEVICE Numbers*)(key_row + there);
            next_value[u] = *(const DEVICE Numbers*)(value_row + there);
        }
        float weight[QUERIES][AT_ONCE];
        for (int u = 0; u < AT_ONCE; ++u)
            for (int q = 0; q < QUERIES; ++q) {
                float product = 0.0f;
                for (int e = 0; e < EACH; ++e) product += query[q][e] * float(key[u].of[e]);
                for (int apart = LANES_OF / 2; apart > 0; apart /= 2) product += other_lane(product, apart);
                weight[q][u] = place + u < end ? product : LEAST;
            }
        for (int q = 0; q < QUERIES; ++q) {
            float most = largest[q];
            for (int u = 0; u < AT_ONCE; ++u) most = weight[q][u] > most ? weight[q][u] : most;
            for (int apart = LANES_OF; apart < 32; apart *= 2) {
                const float theirs = other_lane(most, apart);
                most = theirs > most ? theirs : most;
            }
            const float fading = power_of_two(largest[q] - most);
            largest[q] = most;
            sum[q] *= fading;
            for (int e = 0; e < EACH; ++e) kept[q][e] *= fading;
            for (int u = 0; u < AT_ONCE; ++u) {
                weight[q][u] = power_of_two(weight[q][u] - most);
                sum[q] += weight[q][u];
            }
        }
        for (int u = 0; u < AT_ONCE; ++u) {
            for (int q = 0; q < QUERIES; ++q)
                for (int e = 0; e < EACH; ++e) kept[q][e] += weight[q][u] * float(value[u].of[e]);
            key[u] = next_key[u];
            value[u] = next_value[u];
        }
    }

    for (int q = 0; q < QUERIES; ++q) {
        for (int apart = LANES_OF; apart < 32; apart *= 2) {
            sum[q] += other_lane(sum[q], apart);
            for (int e = 0; e < EACH; ++e) kept[q][e] += other_lane(kept[q][e], apart);
        }
        if (lane == 0) {
            shared_shares[(row * QUERIES + q) * 2] = largest[q];
            shared_shares[(row * QUERIES + q) * 2 + 1] = sum[q];
        }
        for (int e = 0; e < EACH && part == 0; ++e)
            shared_numbers[(row * QUERIES + q) * D + from + e] = kept[q][e];
    }
    WAIT_FOR_GROUP;
    #pragma unroll 1
    for (int i = row * 32 + lane; i < QUERIES * D; i += ROWS * 32) {
        const int q = i / D;
        float most = LEAST, all = 0.0f, joined = 0.0f;
        for (int r = 0; r < ROWS; ++r) {
            const float theirs = shared_shares[(r * QUERIES + q) * 2];
            most = theirs > most ? theirs : most;
        }
        for (int r = 0; r < ROWS; ++r) {
            const float factor = power_of_two(shared_shares[(r * QUERIES + q) * 2] - most);
            all += factor * shared_shares[(r * QUERIES + q) * 2 + 1];
            joined += factor * shared_numbers[r * QUERIES * D + i];
        }
        if (groups == 1) {
            attended[(text * G + head) * QUERIES * D + i] = T(joined / all);
            continue;
        }
        const int place = (text * G + head) * groups + group;
        new_parts[size_t(place) * QUERIES * D + i] = joined;
        if (i % D == 0) {
            new_shares[(place * QUERIES + q) * 2] = most;
            new_shares[(place * QUERIES + q) * 2 + 1] = all;
        }
    }
"""
CODE = Code(
    name="attend",
    inputs=(
        *("rows", "query_weight", "key_weight", "factors", "periods", "positions", "job"),
        *("keys", "values", "parts", "shares"),
    ),
    outputs=("attended", "new_parts", "new_shares"),
    body=BODY,
)
