"""Everything between the projections of a layer of linear attention, as one GPU kernel.

The kernel applies the convolution and silu, normalizes queries and keys, computes the gated delta rule and
applies the gated norm. A group of threads takes one value head of one sequence. It prepares some tokens side
by side in the memory that it shares, applies the rule to them one after another, and goes on to the next.

With many tokens, one group for a head leaves most of a GPU idle. Groups then take parts of heads, and the
same code runs three times: it prepares all tokens, applies the rule, and applies the norm to whole heads. MLX
does not check the kernel, so `mixing` compares its results before it is used.

Axes: B sequences, L new tokens, G key heads, H value heads, K size of a key, V of a value, T taps of the
convolution, C channels, X width of the projection.
"""

from metal_gen.models.kernels.dialect import Code
from metal_gen.models.linear_attention.mix_parts import (
    FINISHED,
    KEYS_OF_TOKEN,
    PACE_OF_TOKEN,
    VALUE_OF_TOKEN,
)

# 32 lanes hold 4 rows of a memory, each in 8 of the lanes, OF_LANE times. So a group of WARPS times 32 lanes
# holds ROWS of a head's V rows. For a row of the memory, with its fading f: what it knows of the key k, and
# what it reads for the query q, both come from the memory before the token. So the sums over lanes do not
# wait for each other:
#   change = (value - f memory k) taken;  read = f memory q + change (k q);  memory = f memory + change k
# T is the dtype of the rows, C that of the convolution's state. `counts` holds L, what to do, the step from
# one sequence to the next in `used`, and where a head's parts are in a row of the projection. Tokens beyond
# those that are used change no state. `ready` is what the job before has put into `outputs`.
BODY = (
    """
    constexpr int E = K / 32, SHARE = H / G, KEYS = G * K, CHANNELS = 2 * KEYS + H * V, BEFORE = TAPS - 1;
    constexpr int WIDTH = CHANNELS + H * V + 2 * H, ROWS = 4 * OF_LANE * WARPS, PARTS = V / ROWS;
    constexpr int SPEED = TAPS * CHANNELS, BIAS = SPEED + H, NORM = BIAS + H, EPS = NORM + V;
    constexpr int THREADS = 32 * WARPS, PREPARED = CHANNELS + 4 * H, FOURS = K / 2;
    struct alignas(16) Four { float of[4]; };
    struct alignas(4 * E) Taps { float of[E]; };
    struct alignas(sizeof(T) * E) New { T of[E]; };
    struct alignas(sizeof(C) * E) Old { C of[E]; };
    const int length = counts[0], job = PARTS > 1 ? counts[1] : TO_MIX;
    const bool of_tokens = job != TO_MIX;
    const int head = job == TO_PREPARE ? across * SHARE : job == TO_FINISH ? across : across / WARPS / PARTS;
    const int part = across / WARPS % PARTS, shared = head / SHARE, turn = head % SHARE;
    int place[6];
    for (int i = 0; i < 6; ++i)
        place[i] = counts[3 + 3 * i] + counts[4 + 3 * i] * shared + counts[5 + 3 * i] * turn;
    const int text = of_tokens ? group / length : beyond;
    const DEVICE T* const own = rows + size_t(text) * length * WIDTH;
    const DEVICE C* const old = before + size_t(text) * BEFORE * CHANNELS;
    const int of_text = used[text * counts[2]], taking = of_text < length ? of_text : length;
    if (PARTS > 1 && job == TO_PREPARE) {
        // A row of lanes has a token of a key head.
        const int token = group % length;
        DEVICE float* const to = outputs + size_t(group) * PREPARED;"""
    + KEYS_OF_TOKEN
    + """
            for (int e = 0; e < E; ++e) {
                to[shared * 2 * K + lane * E + e] = both[0][e] * to_query;
                to[shared * 2 * K + K + lane * E + e] = both[1][e] * to_key;
            }
            for (int i = lane; i < SHARE * V; i += 32) {
                const int head = shared * SHARE + i / V, number = i % V;
                const int in_row = place[2] + counts[11] * (i / V) + number;
"""
    + VALUE_OF_TOKEN
    + """
                to[2 * KEYS + head * V + number] = value;
            }
            for (int i = lane; i < SHARE; i += 32) {
                const int head = shared * SHARE + i;
                const DEVICE T* const here = own + size_t(token) * WIDTH;
                const float pace = float(here[place[5] + counts[20] * i]) + weights[BIAS + head];
                const float beta = float(here[place[4] + counts[17] * i]);
"""
    + PACE_OF_TOKEN
    + """
                to[CHANNELS + 4 * head] = fading;
                to[CHANNELS + 4 * head + 1] = taken;
                to[CHANNELS + 4 * head + 2] = product;
            }
        return;
    }
    if (PARTS > 1 && job == TO_FINISH) {
        const DEVICE T* const gates = rows + size_t(group) * WIDTH + place[3];
        const size_t to = (size_t(group) * H + head) * V;
        float x[V / 32];
        for (int e = 0; e < V / 32; ++e) x[e] = ready[to + lane + 32 * e];
"""
    + FINISHED
    + """
        return;
    }
    const int eighth = lane / 4, first_row = part * ROWS + row * OF_LANE * 4 + lane % 4;
    const size_t first = (size_t(text * H + head) * V + first_row) * K + 4 * eighth;
    float kept[OF_LANE][K / 8];
    for (int o = 0; o < OF_LANE; ++o)
        for (int p = 0; p < K / 32; ++p) {
            const Four four = *(const DEVICE Four*)(memory + first + o * 4 * K + 32 * p);
            for (int e = 0; e < 4; ++e) kept[o][4 * p + e] = four.of[e];
        }
    SHARED Four prepared[TOKENS * FOURS];
    SHARED float held[TOKENS * ROWS];
    SHARED float numbers[TOKENS * 3];
    // For one token, one row of lanes prepares keys, and others values.
    const int at = (row + WARPS / 2) % WARPS * 32 + lane, thread = row * 32 + lane;
    constexpr int LOADS = (TOKENS * FOURS + THREADS - 1) / THREADS;
    constexpr int VALUES = (TOKENS * ROWS + THREADS - 1) / THREADS;
    const DEVICE float* const tokens = ready + size_t(text) * length * PREPARED;
    for (int next = 0; next < length + TOKENS; next += TOKENS) {
        // What other groups have prepared is on its way while the tokens before are computed.
        Four loaded[LOADS];
        float values[VALUES], number = 0.0f;
        if (PARTS > 1 && next < length) {
            for (int i = 0; i < LOADS; ++i) {
                const int token = next + (thread + i * THREADS) / FOURS;
                const size_t near = token < length ? token : length - 1;
                const int number = (thread + i * THREADS) % FOURS * 4;
                loaded[i] = *(const DEVICE Four*)(tokens + near * PREPARED + shared * 2 * K + number);
            }
            for (int i = 0; i < VALUES; ++i) {
                const int token = next + (at + i * THREADS) / ROWS;
                const size_t near = token < length ? token : length - 1;
                const int number = part * ROWS + (at + i * THREADS) % ROWS;
                values[i] = tokens[near * PREPARED + 2 * KEYS + head * V + number];
            }
            const int token = next + thread / 3;
            const size_t near = token < length ? token : length - 1;
            number = tokens[near * PREPARED + CHANNELS + 4 * head + thread % 3];
        }
        const int start = next - TOKENS, left = next == 0 ? 0 : length - start;
        const int count = left < TOKENS ? left : TOKENS;
        for (int item = 0; item < count; ++item) {
            float query[K / 8], key[K / 8];
            for (int p = 0; p < K / 32; ++p) {
                const Four of_query = prepared[item * FOURS + 8 * p + eighth];
                const Four of_key = prepared[item * FOURS + FOURS / 2 + 8 * p + eighth];
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
            for (int i = at; i < count * ROWS; i += THREADS) {
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
            if (next > 0 && next < length) WAIT_FOR_GROUP;
        }
        if (next >= length) break;
        const int more = length - next < TOKENS ? length - next : TOKENS;
        if (PARTS > 1) {
            for (int i = 0; i < LOADS; ++i)
                if (thread + i * THREADS < TOKENS * FOURS) prepared[thread + i * THREADS] = loaded[i];
            for (int i = 0; i < VALUES; ++i)
                if (at + i * THREADS < TOKENS * ROWS) held[at + i * THREADS] = values[i];
            if (thread < TOKENS * 3) numbers[thread] = number;
            WAIT_FOR_GROUP;
        } else {
            for (int item = row; item < more; item += WARPS) {
                const int token = next + item;
                const float pace = float(own[size_t(token) * WIDTH + place[5]]) + weights[BIAS + head];
                const float beta = float(own[size_t(token) * WIDTH + place[4]]);"""
    + KEYS_OF_TOKEN
    + """
                for (int e = 0; e < E; ++e) {
                    const int number = item * 2 * K + lane * E + e;
                    prepared[number / 4].of[number % 4] = both[0][e] * to_query;
                    prepared[(number + K) / 4].of[number % 4] = both[1][e] * to_key;
                }
                if (lane == 0) {"""
    + PACE_OF_TOKEN
    + """
                    numbers[3 * item] = fading;
                    numbers[3 * item + 1] = taken;
                    numbers[3 * item + 2] = product;
                }
            }
            for (int i = at; i < more * ROWS; i += THREADS) {
                const int token = next + i / ROWS, number = part * ROWS + i % ROWS;
                const int in_row = place[2] + number;
"""
    + VALUE_OF_TOKEN
    + """
                held[i] = value;
            }
            WAIT_FOR_GROUP;
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
    for (int i = thread; i < BEFORE * (2 * K + ROWS - mine); i += THREADS) {
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
# Compute all, or with parts of heads only the rule; finish heads; prepare tokens.
TO_MIX, TO_FINISH, TO_PREPARE = 0, 1, 2
CODE = Code(
    name="mix",
    inputs=("rows", "before", "memory", "weights", "used", "counts", "ready"),
    outputs=("attended", "outputs", "conv", "after"),
    body=BODY,
)
