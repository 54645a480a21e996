"""Pieces of the kernel for linear attention, each used in two places of `mix_kernel`.

They are parts of one body, which declares what they name.
"""

# Given `token` of a text: its query and key, in E numbers of each lane, and their product.
KEYS_OF_TOKEN = """
            float both[2][E];
            for (int kind = 0; kind < 2; ++kind) {
                const int channel = kind * KEYS + shared * K + lane * E;
                for (int e = 0; e < E; ++e) both[kind][e] = 0.0f;
                for (int tap = 0; tap < TAPS; ++tap) {
                    const int input = token + tap - BEFORE;
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
            const float to_query = inverse_root(sum_of_lanes(of_query) + 1e-6f) * inverse_root(float(K));
            const float to_key = inverse_root(sum_of_lanes(of_key) + 1e-6f);
            product = sum_of_lanes(product) * to_query * to_key;
"""
# Given its decay `pace` and `beta`, what a head keeps and what it takes; log(1 + t) also for small t.
PACE_OF_TOKEN = """
                const float t = exponential(pace > 0.0f ? -pace : pace);
                const float series =
                    t * (1.0f - t * (1.0f / 2 - t * (1.0f / 3 - t * (1.0f / 4 - t * (1.0f / 5)))));
                const float above = t < 0.0625f ? series : logarithm(1.0f + t);
                const float softplus = (pace > 0.0f ? pace : 0.0f) + above;
                const bool takes = token < taking;
                const float fading = takes ? exponential(weights[SPEED + head] * softplus) : 1.0f;
                const float taken = takes ? 1.0f / (1.0f + exponential(-beta)) : 0.0f;
"""
# Given a `number` of a head, its value after the convolution and silu.
VALUE_OF_TOKEN = """
                const int channel = 2 * KEYS + head * V + number;
                float sum = 0.0f;
                for (int tap = 0; tap < TAPS; ++tap) {
                    const int input = token + tap - BEFORE;
                    const float x = input < 0 ? float(old[(input + BEFORE) * CHANNELS + channel])
                                              : float(own[size_t(input) * WIDTH + in_row]);
                    sum += x * weights[tap * CHANNELS + channel];
                }
                const float value = sum / (1.0f + exponential(-sum));
"""
# Given a head's results `x`, V / 32 numbers in each lane: the gated norm.
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
