// Memories that Verilator's runtime keeps a cache line apart.
//
// The banks of a convolver are read at nearly the same address in every cycle. As they lie one behind the
// other and are 4 KB long, their words would all fall on the same lines of the processor's first cache:
// with a line between them the grid of 4 columns runs a twentieth faster. Included by verilated.h, which
// defines the array that this is a special case of.
#pragma once

#include <cstddef>

template <typename T_Value, std::size_t N_Depth> class VlUnpacked;

template <typename T_Value, std::size_t N_Depth>
    requires(N_Depth * sizeof(T_Value) % 4096 == 0)
class VlUnpacked<T_Value, N_Depth> final {
public:
    T_Value m_storage[N_Depth];
    char m_apart[64];

    T_Value &operator[](std::size_t index) { return m_storage[index]; }
    const T_Value &operator[](std::size_t index) const { return m_storage[index]; }
};
