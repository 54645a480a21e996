"""What the kernel for products in 4 bits calls on CUDA, as C++ for `cpp_kernel`.

A product of tensor cores adds up in float64 here, and copies are finished at once.
"""

from metal_gen.models.kernels.quantized_source import FORMS

TENSOR_CORES = (
    FORMS
    + """
template <int IS_HALF> static unsigned numbers_of(unsigned word) {
    return (word & 0x000f000fu) | Form<IS_HALF>::offset_bits;
}
template <int IS_HALF> static double half_of(unsigned pair, int place) {
    const uint16_t bits = pair >> (16 * place);
    if (IS_HALF) {
        _Float16 number;
        std::memcpy(&number, &bits, 2);
        return double(number);
    }
    Brain number;
    number.bits = bits;
    return float(number);
}
static unsigned held_by[1024][6];
// Lane 4 i + j holds of the left matrix rows i and i + 8, of the right one column i: numbers 2 j, 2 j + 1 and
// these + 8 of both.
template <int IS_HALF>
static void multiply(
    float* sums, unsigned a, unsigned b, unsigned c, unsigned d, unsigned x, unsigned y) {
    const int me = now - threads, first = me / 32 * 32, lane = me % 32;
    const unsigned held[6] = {a, b, c, d, x, y};
    std::memcpy(held_by[me], held, sizeof held);
    step_aside();
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = sums[i];
        for (int k = 0; k < 16; ++k) {
            const unsigned left = held_by[first + row % 8 * 4 + k % 8 / 2][k / 8 * 2 + row / 8];
            const unsigned right = held_by[first + column * 4 + k % 8 / 2][4 + k / 8];
            sum += half_of<IS_HALF>(left, k % 2) * half_of<IS_HALF>(right, k % 2);
        }
        sums[i] = sum;
    }
    step_aside();
}
template <int BYTES> static void copy_ahead(void* to, const void* from) { std::memcpy(to, from, BYTES); }
static void end_stage() {}
template <int LEFT> static void wait_for_stages() {}
#define WAIT_FOR_LANES step_aside()
"""
)
