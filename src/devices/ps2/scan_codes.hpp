// The controller's translation of scan code set 2 into set 1, and back (IBM PS/2 Hardware Interface Technical Reference, "Keyboards").
#pragma once

#include <cstdint>

namespace lodge::devices::ps2 {

// Of one key: below 0x80 in set 1.
[[nodiscard]] uint8_t set2_of_set1(uint8_t code);
[[nodiscard]] uint8_t set1_of_set2(uint8_t code);

}  // namespace lodge::devices::ps2
