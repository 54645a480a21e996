"""The code of the product of a few rows with a matrix in 4 bits, for CUDA.

MLX's own kernel for CUDA reaches a fifth of the bandwidth of a large GPU, so a matrix in 4 bits is hardly
faster there than one in 16. Metal has fast ones.

A row of 32 lanes takes 16 outputs and SPAN inputs at a time. Tensor cores multiply 16 x 16 numbers by 16 x 8
(`mma.m16n8k16`), so 8 rows cost as much as one, and each row has the same result whatever the others are. A
number q of 4 bits becomes the floating-point number OFFSET + q by a single operation, which puts its bits
behind those of OFFSET. So the sum over a group of numbers, with scale s and bias b, is
  s sum((OFFSET + q) x) + (b - OFFSET s) sum(x).
Packed numbers are copied to shared memory some stages ahead (`cp.async`), from where lanes take them in the
order that tensor cores want.

Axes: R rows, K inputs, N outputs.
"""

from metal_gen.models.kernels.dialect import Code

# Inputs that a row of lanes takes at a time.
SPAN = 256
# Outputs of a tile: the rows of a product of tensor cores.
TILE = 16
# Columns of a product of tensor cores.
MOST_ROWS = 8

# The bits of both dtypes, in plain C++.
FORMS = """
template <int IS_HALF> struct Form;
template <> struct Form<0> {
    static constexpr unsigned one = 0x3f803f80u, offset_bits = 0x43004300u;
    static constexpr float offset = 128.0f;
};
template <> struct Form<1> {
    static constexpr unsigned one = 0x3c003c00u, offset_bits = 0x64006400u;
    static constexpr float offset = 1024.0f;
};
"""
HEADER = (
    FORMS
    + """// A bfloat16 or float16 from four bits in each half of a word.
template <int IS_HALF> __device__ inline unsigned numbers_of(unsigned word) {
    unsigned numbers;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;"
        : "=r"(numbers) : "r"(word), "r"(0x000f000fu), "r"(Form<IS_HALF>::offset_bits));
    return numbers;
}
#define MULTIPLY(TYPE) \\
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 " \\
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \\
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) \\
        : "r"(a), "r"(b), "r"(c), "r"(d), "r"(x), "r"(y))
template <int IS_HALF>
__device__ inline void multiply(
    float* sums, unsigned a, unsigned b, unsigned c, unsigned d, unsigned x, unsigned y) {
    if (IS_HALF) MULTIPLY("f16");
    else MULTIPLY("bf16");
}
template <int BYTES> __device__ inline void copy_ahead(void* to, const void* from) {
    const unsigned place = unsigned(__cvta_generic_to_shared(to));
    if (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(place), "l"(from));
    else asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" :: "r"(place), "l"(from), "n"(BYTES));
}
__device__ inline void end_stage() { asm volatile("cp.async.commit_group;"); }
template <int LEFT> __device__ inline void wait_for_stages() {
    asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory");
}
#define WAIT_FOR_LANES __syncwarp()
"""
)

# T is the dtype of all but the packed numbers, and IS_HALF says whether it is float16. GROUP numbers share a
# scale. A group of WARPS x 32 threads takes TILES tiles; its rows of lanes share the inputs, and hold STAGES
# stages each.
# Of a product of tensor cores, lane 4 i + j holds outputs i and i + 8, and columns 2 j and 2 j + 1.
BODY = """
    constexpr int SCALES = SPAN / GROUP, WORDS = GROUP / 32, BYTES = SPAN / 2, STRIDE = BYTES + 32;
    constexpr int PIECES = BYTES / 16, APART = 32 / PIECES, SCALE_BYTES = 2 * SCALES;
    constexpr int STAGE = TILE * (STRIDE + 2 * SCALE_BYTES);
    struct alignas(4 * WORDS) Words { unsigned of[WORDS]; };
    struct alignas(SCALE_BYTES) Scales { T of[SCALES]; };
    struct alignas(16) Eight { unsigned pairs[4]; };
    SHARED alignas(16) unsigned char staged[WARPS][STAGES][STAGE];
    const int count = rows_shape[0], inputs = rows_shape[1], outputs = scales_shape[0];
    const int spans = inputs / SPAN, own_spans = (spans - row + WARPS - 1) / WARPS;
    const int quad = lane / 4, part = lane % 4, first = group * TILES * TILE;

    // A stage holds a tile's part of a span: the packed numbers as in memory, then scales and biases.
    const unsigned char* const numbers =
        (const unsigned char*)packed + size_t(first + lane / PIECES) * (inputs / 2) + lane % PIECES * 16;
    const T* const factors = (lane < TILE ? scales : biases) + size_t(first + lane % TILE) * (inputs / GROUP);
    int copied = 0, copied_tile = 0, copied_span = row;
    const auto copy_next = [&]() {
        if (copied < own_spans * TILES) {
            unsigned char* const to = staged[row][copied % STAGES];
            const unsigned char* const from =
                numbers + size_t(copied_tile) * TILE * (inputs / 2) + size_t(copied_span) * BYTES;
#pragma unroll
            for (int piece = 0; piece < TILE / APART; ++piece)
                copy_ahead<16>(
                    to + (lane / PIECES + piece * APART) * STRIDE + lane % PIECES * 16,
                    from + size_t(piece) * APART * (inputs / 2));
            copy_ahead<SCALE_BYTES>(
                to + TILE * STRIDE + lane * SCALE_BYTES,
                factors + size_t(copied_tile) * TILE * (inputs / GROUP) + copied_span * SCALES);
            ++copied;
            if (++copied_tile == TILES) {
                copied_tile = 0;
                copied_span += WARPS;
            }
        }
        end_stage();
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) copy_next();

    float sums[TILES][2][2];
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile)
        for (int i = 0; i < 4; ++i) sums[tile][i / 2][i % 2] = 0.0f;
    int stage = 0;
    for (int span = row; span < spans; span += WARPS) {
        // The same bits of a word's halves are of numbers that are 4 apart, so the inputs are paired alike.
        unsigned right[SCALES][WORDS][4];
        float totals[SCALES][2];
        const T* const own = rows + size_t(quad < count ? quad : count - 1) * inputs + span * SPAN;
#pragma unroll
        for (int scale = 0; scale < SCALES; ++scale) {
            float ones[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
            for (int word = 0; word < WORDS; ++word) {
                const Eight x = *(const Eight*)(own + ((scale * 4 + part) * WORDS + word) * 8);
                unsigned* const to = right[scale][word];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    to[2 * i] = (x.pairs[i] & 0xffffu) | (x.pairs[i + 2] << 16);
                    to[2 * i + 1] = (x.pairs[i] >> 16) | (x.pairs[i + 2] & 0xffff0000u);
                    const unsigned one = Form<IS_HALF>::one;
                    multiply<IS_HALF>(ones, one, one, one, one, to[2 * i], to[2 * i + 1]);
                }
            }
            totals[scale][0] = ones[0];
            totals[scale][1] = ones[1];
        }
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            copy_next();
            wait_for_stages<STAGES - 1>();
            WAIT_FOR_LANES;
            const unsigned char* const from = staged[row][stage];
            Scales scale_of[2], bias_of[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const unsigned char* const pair = from + TILE * STRIDE + (half * 8 + quad) * SCALE_BYTES;
                scale_of[half] = *(const Scales*)pair;
                bias_of[half] = *(const Scales*)(pair + TILE * SCALE_BYTES);
            }
#pragma unroll
            for (int scale = 0; scale < SCALES; ++scale) {
                float products[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                const unsigned char* const words = from + quad * STRIDE + (scale * 4 + part) * WORDS * 4;
                const Words lower = *(const Words*)words, upper = *(const Words*)(words + 8 * STRIDE);
#pragma unroll
                for (int word = 0; word < WORDS; ++word)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const unsigned low = lower.of[word] >> (8 * i), high = upper.of[word] >> (8 * i);
                        multiply<IS_HALF>(
                            products, numbers_of<IS_HALF>(low), numbers_of<IS_HALF>(high),
                            numbers_of<IS_HALF>(low >> 4), numbers_of<IS_HALF>(high >> 4),
                            right[scale][word][2 * i], right[scale][word][2 * i + 1]);
                    }
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float factor = float(scale_of[half].of[scale]);
                    const float bias = float(bias_of[half].of[scale]) - Form<IS_HALF>::offset * factor;
#pragma unroll
                    for (int i = 0; i < 2; ++i)
                        sums[tile][half][i] += factor * products[half * 2 + i] + bias * totals[scale][i];
                }
            }
            WAIT_FOR_LANES;
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
    }
    // The shares of sums of each row of lanes take the place of the stages.
    WAIT_FOR_GROUP;
    float(*const shares)[TILE * TILES][8] = (float(*)[TILE * TILES][8])staged;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile)
        for (int half = 0; half < 2; ++half)
            for (int i = 0; i < 2; ++i)
                shares[row][tile * TILE + half * 8 + quad][part * 2 + i] = sums[tile][half][i];
    WAIT_FOR_GROUP;
    for (int place = row * 32 + lane; place < TILE * TILES * count; place += WARPS * 32) {
        const int output = place % (TILE * TILES), column = place / (TILE * TILES);
        float sum = 0.0f;
        for (int other = 0; other < WARPS; ++other) sum += shares[other][output][column];
        product[size_t(column) * outputs + first + output] = T(sum);
    }
"""
CODE = Code(
    name="quantized_product",
    inputs=("rows", "packed", "scales", "biases"),
    outputs=("product",),
    body=f"constexpr int SPAN = {SPAN}, TILE = {TILE};" + BODY,
    header=HEADER,
)
