#include "devices/chipset/shadow_control.hpp"

namespace lodge::devices::chipset {

void ShadowControl::written(unsigned pam, uint8_t value) {
  if (pam == 0) return set(0, value >> 4);
  set(2 * pam - 1, value & 0xf);
  set(2 * pam, value >> 4);
}

void ShadowControl::set(unsigned index, unsigned nibble) {
  constexpr unsigned kReadEnable = 1, kWriteEnable = 2;  // bit 2, cacheability, has no meaning here
  const ShadowState wanted{.reads = (nibble & kReadEnable) != 0, .writes = (nibble & kWriteEnable) != 0};
  if (wanted == states_[index]) return;
  states_[index] = wanted;
  changed_(area(index), wanted);
}

}  // namespace lodge::devices::chipset
