// Functions of Verilator's runtime in forms that compilers make better code of: a tenth faster.
// Every translated file includes this behind verilated.h, whose functions of the same names it hides.
// It gives the same as they do for operands without bits above their width (tests/test_sim_header.py),
// and those of translated files have none.
#pragma once

#include <cstring>

// The runtime's `-(x & sign) | x` is three operations to a compiler; two shifts it knows as one.
static inline IData neuflow_extend(int bits, IData x) {
    return static_cast<IData>(static_cast<int32_t>(x << (32 - bits)) >> (32 - bits));
}
static inline QData neuflow_extend(int bits, QData x) {
    return static_cast<QData>(static_cast<int64_t>(x << (64 - bits)) >> (64 - bits));
}

// For comparisons the sign need only stand at the top.
static inline int32_t neuflow_top(int bits, IData x) {
    return static_cast<int32_t>(x << (32 - bits));
}

// An arithmetic shift to the right; the runtime makes the signs behind the word one by one. Bits above
// the result's width are as open here as they are there.
template <int AMOUNT_BITS> static inline IData neuflow_shift_signed(int bits, IData x, IData by) {
    const IData most = AMOUNT_BITS <= 5 ? by : by < 31 ? by : 31;
    return static_cast<IData>(static_cast<int32_t>(neuflow_extend(bits, x)) >> most);
}
template <int AMOUNT_BITS> static inline QData neuflow_shift_signed(int bits, QData x, IData by) {
    const IData most = AMOUNT_BITS <= 6 ? by : by < 63 ? by : 63;
    return static_cast<QData>(static_cast<int64_t>(neuflow_extend(bits, x)) >> most);
}

// A logical shift of a wide word by whole bytes is a copy of a length that the compiler knows; the
// runtime goes word by word, as many as remain.
template <std::size_t BYTES>
static inline WDataOutP neuflow_shift(WDataOutP out, WDataInP const in, std::size_t bytes) {
    unsigned char above[2 * BYTES];
    std::memcpy(above, in, BYTES);
    std::memset(above + BYTES, 0, BYTES);
    std::memcpy(out, above + (bytes < BYTES ? bytes : BYTES), BYTES);
    return out;
}

// To the left: `bits` are the word's, and above them it is 0.
template <int BITS>
static inline WDataOutP neuflow_shift_left(WDataOutP out, WDataInP const in, std::size_t bytes) {
    constexpr std::size_t BYTES = sizeof(EData) * ((BITS + 31) / 32);
    unsigned char below[2 * BYTES];
    std::memset(below, 0, BYTES);
    std::memcpy(below + BYTES, in, BYTES);
    std::memcpy(out, below + BYTES - (bytes < BYTES ? bytes : BYTES), BYTES);
    out[BYTES / sizeof(EData) - 1] &= VL_MASK_E(BITS);
    return out;
}

#define VL_EXTENDS_II(to, from, x) neuflow_extend(from, IData(x))
#define VL_EXTENDS_QI(to, from, x) neuflow_extend(from, QData(x))
#define VL_EXTENDS_QQ(to, from, x) neuflow_extend(from, QData(x))
#define VL_MULS_III(bits, a, b) (neuflow_extend(bits, IData(a)) * neuflow_extend(bits, IData(b)))
#define VL_MULS_QQQ(bits, a, b) (neuflow_extend(bits, QData(a)) * neuflow_extend(bits, QData(b)))
#define VL_GTS_III(bits, a, b) IData(neuflow_top(bits, a) > neuflow_top(bits, b))
#define VL_GTES_III(bits, a, b) IData(neuflow_top(bits, a) >= neuflow_top(bits, b))
#define VL_LTS_III(bits, a, b) IData(neuflow_top(bits, a) < neuflow_top(bits, b))
#define VL_LTES_III(bits, a, b) IData(neuflow_top(bits, a) <= neuflow_top(bits, b))
#define VL_SHIFTRS_III(to, from, by, x, n) neuflow_shift_signed<by>(from, IData(x), n)
#define VL_SHIFTRS_QQI(to, from, by, x, n) neuflow_shift_signed<by>(from, QData(x), n)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define VL_SHIFTR_WWI(to, from, by, out, in, bits) \
    ((bits) % 8 || (to) % 32 ? (VL_SHIFTR_WWI)(to, from, by, out, in, bits) \
                             : neuflow_shift<(to) / 8>(out, in, (bits) / 8))
#define VL_SHIFTL_WWI(to, from, by, out, in, bits) \
    ((bits) % 8 ? (VL_SHIFTL_WWI)(to, from, by, out, in, bits) \
                : neuflow_shift_left<to>(out, in, (bits) / 8))
#endif
