// Two outcomes of the same case, side by side.
#pragma once

#include <string>

#include "state.hpp"

namespace lodge::oracle {

// Empty when they are equal, else a line for each difference: "rax: 0x1 | 0x2".
[[nodiscard]] std::string differences(const Case& test, const Outcome& left, const Outcome& right);

// The state that a case starts from, for a reproducer.
[[nodiscard]] std::string describe(const Case& test);

}  // namespace lodge::oracle
