"""Everything between the projections of a layer of linear attention, as one GPU kernel or two.

The kernel applies the convolution and silu, normalises queries and keys, computes the gated delta rule and
applies the gated norm. A group of threads takes one value head of one sequence. It prepares some tokens side
by side in the memory that it shares, applies the rule to them one after another, and goes on to the next.

The rule needs parallel work in long prompts, so a group then takes only a part of a head's rows, and the same
code runs a second time for the gated norm. MLX does not check the kernel, so `mixing` compares its results
before it is used.

Axes: B sequences, L new tokens, G key heads, H value heads, K size of a key, V of a value, T taps of the
convolution, C channels, X width of the projection.
"""

from metal_gen.models.kernels.dialect import Code

# 32 lanes hold 4 rows of a memory, each in 8 of the lanes, OF_LANE times. So a group of WARPS times 32 lanes
# holds ROWS of a head's V rows. For a row of the memory, with its fading f: what it knows of the key k, and
# what it reads for the query q, both come from the memory before the token. So the sums over lanes do not
# wait for each other:
#   change = (value - f memory k) taken;  read = f memory q + change (k q);  memory = f memory + change k
FINISHED = """
            float squares = 0.0f;
            for (int e = 0; e < V / 32; ++e) squares += x[e] * x[e];
            const float scale = inverse_root(sum_of_lanes(squares) / V + weights[EPS]);
            for (int e = 0; e < V / 32; ++e) {
                const int number = lane + 32 * e;
                const float gate = float(gates[number]);
                const float open = gate / (1.0f + exponential(-gate));
                attended[to + number] = T(x[e] * scale * weights[NORM + number] * open);
            }
"""
# T is the dtype of the rows, C that of the convolution's state. `counts` holds L, what to do, the step from
# one sequence to the next in `used`, and where a head's parts are in a row of the projection. Tokens beyond
# those that are used change no state.
BODY = (
    """
    constexpr int E = K / 32, SHARE = H / G, KEYS = G * K, CHANNELS = 2 * KEYS + H * V, BEFORE = TAPS - 1;
    constexpr int WIDTH = CHANNELS + H * V + 2 * H, ROWS = 4 * OF_LANE * WARPS, PARTS = V / ROWS;
    constexpr int SPEED = TAPS * CHANNELS, BIAS = SPEED + H, NORM = BIAS + H, EPS = NORM + V;
    struct alignas(16) Four { float of[4]; };
    struct alignas(4 * E) Taps { float of[E]; };
    struct alignas(sizeof(T) * E) New { T of[E]; };
    struct alignas(sizeof(C) * E) Old { C of[E]; };
    const int length = counts[0];
    const int head = counts[1] == TO_FINISH ? across : across / WARPS / PARTS;
    const int part = across / WARPS % PARTS, shared = head / SHARE, turn = head % SHARE;
    int place[6];
    for (int i = 0; i < 6; ++i)
        place[i] = counts[3 + 3 * i] + counts[4 + 3 * i] * shared + counts[5 + 3 * i] * turn;
    if (counts[1] == TO_FINISH) {
        const DEVICE T* const gates = rows + size_t(group) * WIDTH + place[3];
        const size_t to = (size_t(group) * H + head) * V;
        float x[V / 32];
        for (int e = 0; e < V / 32; ++e) x[e] = heads[to + lane + 32 * e];
        {"""
    + FINISHED
    + """
        }
        return;
    }
    const int text = beyond, eighth = lane / 4;
    const DEVICE T* const own = rows + size_t(text) * length * WIDTH;
    const DEVICE C* const old = before + size_t(text) * BEFORE * CHANNELS;
    const int of_text = used[text * counts[2]], taking = of_text < length ? of_text : length;
    const int first_row = part * ROWS + row * OF_LANE * 4 + lane % 4;
    const size_t first = (size_t(text * H + head) * V + first_row) * K + 4 * eighth;
    float kept[OF_LANE][K / 8];
    for (int o = 0; o < OF_LANE; ++o)
        for (int p = 0; p < K / 32; ++p) {
            const Four four = *(const DEVICE Four*)(memory + first + o * 4 * K + 32 * p);
            for (int e = 0; e < 4; ++e) kept[o][4 * p + e] = four.of[e];
        }
    SHARED Four prepared[TOKENS * 2 * K / 4];
    SHARED float held[TOKENS * ROWS];
    SHARED float numbers[TOKENS * 3];
    // For one token, one row of lanes prepares keys, and others values.
    const int at = (row + WARPS / 2) % WARPS * 32 + lane;
    for (int start = 0; start < length; start += TOKENS) {
        const int count = length - start < TOKENS ? length - start : TOKENS;
        for (int item = row; item < count; item += WARPS) {
            const float pace = float(own[size_t(start + item) * WIDTH + place[5]]) + weights[BIAS + head];
            const float beta = float(own[size_t(start + item) * WIDTH + place[4]]);
            float both[2][E];
            for (int kind = 0; kind < 2; ++kind) {
                const int channel = kind * KEYS + shared * K + lane * E;
                for (int e = 0; e < E; ++e) both[kind][e] = 0.0f;
                for (int tap = 0; tap < TAPS; ++tap) {
                    const int input = start + item + tap - BEFORE;
                    const Taps taps = *(const DEVICE Taps*)(weights + tap * CHANNELS + channel);
                    float x[E];
                    if (input < 0) {
                        const Old found = *(const DEVICE Old*)(old + (input + BEFORE) * CHANNELS + channel);
                        for (int e = 0; e < E; ++e) x[e] = float(found.of[e]);
                    } else {
                        const New found =
                            *(const DEVICE New*)(own + size_t(input) * WIDTH + place[kind] + lane * E);
                        for (int e = 0; e < E; ++e) x[e] = float(found.of[e]);
                    }
                    for (int e = 0; e < E; ++e) both[kind][e] += x[e] * taps.of[e];
                }
                for (int e = 0; e < E; ++e)
                    both[kind][e] = both[kind][e] / (1.0f + exponential(-both[kind][e]));
            }
            float of_query = 0.0f, of_key = 0.0f, product = 0.0f;
            for (int e = 0; e < E; ++e) {
                of_query += both[0][e] * both[0][e];
                of_key += both[1][e] * both[1][e];
                product += both[0][e] * both[1][e];
            }
            const float of_size = inverse_root(float(K));
            const float to_query = inverse_root(sum_of_lanes(of_query) + 1e-6f) * of_size;
            const float to_key = inverse_root(sum_of_lanes(of_key) + 1e-6f);
            product = sum_of_lanes(product) * to_query * to_key;
            for (int e = 0; e < E; ++e) {
                const int number = item * 2 * K + lane * E + e;
                prepared[number / 4].of[number % 4] = both[0][e] * to_query;
                prepared[(number + K) / 4].of[number % 4] = both[1][e] * to_key;
            }
            if (lane == 0) {
                // log(1 + t), also for small t.
                const float t = exponential(pace > 0.0f ? -pace : pace);
                const float series =
                    t * (1.0f - t * (1.0f / 2 - t * (1.0f / 3 - t * (1.0f / 4 - t * (1.0f / 5)))));
                const float above = t < 0.0625f ? series : logarithm(1.0f + t);
                const float softplus = (pace > 0.0f ? pace : 0.0f) + above;
                const bool takes = start + item < taking;
                numbers[3 * item] = takes ? exponential(weights[SPEED + head] * softplus) : 1.0f;
                numbers[3 * item + 1] = takes ? 1.0f / (1.0f + exponential(-beta)) : 0.0f;
                numbers[3 * item + 2] = product;
            }
        }
        for (int i = at; i < count * ROWS; i += WARPS * 32) {
            const int number = part * ROWS + i % ROWS, channel = 2 * KEYS + head * V + number;
            float sum = 0.0f;
            for (int tap = 0; tap < TAPS; ++tap) {
                const int input = start + i / ROWS + tap - BEFORE;
                const float x = input < 0 ? float(old[(input + BEFORE) * CHANNELS + channel])
                                          : float(own[size_t(input) * WIDTH + place[2] + number]);
                sum += x * weights[tap * CHANNELS + channel];
            }
            held[i] = sum / (1.0f + exponential(-sum));
        }
        WAIT_FOR_GROUP;
        for (int item = 0; item < count; ++item) {
            float query[K / 8], key[K / 8];
            for (int p = 0; p < K / 32; ++p) {
                const Four of_query = prepared[(item * 2 * K + 32 * p) / 4 + eighth];
                const Four of_key = prepared[(item * 2 * K + K + 32 * p) / 4 + eighth];
                for (int e = 0; e < 4; ++e) {
                    query[4 * p + e] = of_query.of[e];
                    key[4 * p + e] = of_key.of[e];
                }
            }
            const float fading = numbers[3 * item], taken = numbers[3 * item + 1];
            const float product = numbers[3 * item + 2];
            float known[OF_LANE], read[OF_LANE];
            for (int o = 0; o < OF_LANE; ++o) {
                float knows[4], reads[4];  // Four sums at once do not wait for each other.
                for (int e = 0; e < 4; ++e) knows[e] = reads[e] = 0.0f;
                for (int p = 0; p < K / 32; ++p)
                    for (int e = 0; e < 4; ++e) {
                        knows[e] += kept[o][4 * p + e] * key[4 * p + e];
                        reads[e] += kept[o][4 * p + e] * query[4 * p + e];
                    }
                known[o] = fading * ((knows[0] + knows[1]) + (knows[2] + knows[3]));
                read[o] = fading * ((reads[0] + reads[1]) + (reads[2] + reads[3]));
                // Only one lane of a row looks at its value, since it puts the result in the same place.
                if (eighth == 0) known[o] -= held[item * ROWS + (row * OF_LANE + o) * 4 + lane];
            }
            for (int apart = 4; apart < 32; apart *= 2)
                for (int o = 0; o < OF_LANE; ++o) {
                    known[o] += other_lane(known[o], apart);
                    read[o] += other_lane(read[o], apart);
                }
            for (int o = 0; o < OF_LANE; ++o) {
                const float change = -taken * known[o];
                for (int i = 0; i < K / 8; ++i) kept[o][i] = fading * kept[o][i] + change * key[i];
                if (eighth == 0)
                    held[item * ROWS + (row * OF_LANE + o) * 4 + lane] = read[o] + change * product;
            }
        }
        WAIT_FOR_GROUP;
        if (PARTS > 1) {
            for (int i = at; i < count * ROWS; i += WARPS * 32) {
                const size_t token = size_t(text) * length + start + i / ROWS;
                outputs[(token * H + head) * V + part * ROWS + i % ROWS] = held[i];
            }
        } else {
            for (int item = row; item < count; item += WARPS) {
                const DEVICE T* const gates = own + size_t(start + item) * WIDTH + place[3];
                const size_t to = ((size_t(text) * length + start + item) * H + head) * V;
                float x[V / 32];
                for (int e = 0; e < V / 32; ++e) x[e] = held[item * V + lane + 32 * e];
"""
    + FINISHED
    + """
            }
            if (start + TOKENS < length) WAIT_FOR_GROUP;
        }
    }
    for (int o = 0; o < OF_LANE; ++o)
        for (int p = 0; p < K / 32; ++p) {
            Four four;
            for (int e = 0; e < 4; ++e) four.of[e] = kept[o][4 * p + e];
            *(DEVICE Four*)(after + first + o * 4 * K + 32 * p) = four;
        }
    // Of the groups that share a key head, one keeps its inputs.
    const int mine = part == 0 && turn == 0 ? 0 : 2 * K;
    for (int i = row * 32 + lane; i < BEFORE * (2 * K + ROWS - mine); i += WARPS * 32) {
        const int number = mine + i % (2 * K + ROWS - mine), tap = i / (2 * K + ROWS - mine);
        const int input = taking + tap - BEFORE;
        int channel = 2 * KEYS + head * V + part * ROWS + number - 2 * K;
        int in_row = place[2] + part * ROWS + number - 2 * K;
        if (number < 2 * K) {
            channel = number / K * KEYS + shared * K + number % K;
            in_row = (number < K ? place[0] : place[1]) + number % K;
        }
        conv[(text * BEFORE + tap) * CHANNELS + channel] = input < 0
            ? old[(input + BEFORE) * CHANNELS + channel]
            : C(float(own[size_t(input) * WIDTH + in_row]));
    }
"""
)
TO_MIX, TO_FINISH = 0, 1
CODE = Code(
    name="mix",
    inputs=("rows", "before", "memory", "weights", "used", "counts", "heads"),
    outputs=("attended", "outputs", "conv", "after"),
    body=BODY,
)
