#include "devices/pci/config_space.hpp"

#include <cassert>

namespace lodge::devices::pci {

uint32_t ConfigSpace::read(unsigned offset, unsigned size) const {
  assert(offset + size <= kBytes);
  uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= static_cast<uint32_t>(bytes_[offset + i]) << (8 * i);
  return value;
}

void ConfigSpace::write(unsigned offset, unsigned size, uint32_t value) {
  assert(offset + size <= kBytes);
  for (unsigned i = 0; i < size; ++i) {
    const auto byte = static_cast<uint8_t>(value >> (8 * i));
    const uint8_t mask = writable_[offset + i];
    bytes_[offset + i] = static_cast<uint8_t>((bytes_[offset + i] & ~mask) | (byte & mask));
  }
}

void ConfigSpace::set(unsigned offset, unsigned size, uint32_t value) {
  assert(offset + size <= kBytes);
  for (unsigned i = 0; i < size; ++i) bytes_[offset + i] = static_cast<uint8_t>(value >> (8 * i));
}

void ConfigSpace::allow(unsigned offset, unsigned size, uint32_t writable_bits) {
  assert(offset + size <= kBytes);
  for (unsigned i = 0; i < size; ++i) writable_[offset + i] |= static_cast<uint8_t>(writable_bits >> (8 * i));
}

unsigned ConfigSpace::add_capability(Capability id, std::span<const uint8_t> body) {
  constexpr unsigned kIdAndLink = 2;
  const unsigned at = next_capability_;
  assert(at + kIdAndLink + body.size() <= kBytes);
  next_capability_ = (at + kIdAndLink + static_cast<unsigned>(body.size()) + 3) & ~3u;
  bytes_[at] = static_cast<uint8_t>(id);
  bytes_[at + 1] = bytes_[kCapabilitiesPointer];
  bytes_[kCapabilitiesPointer] = static_cast<uint8_t>(at);
  for (unsigned i = 0; i < body.size(); ++i) bytes_[at + kIdAndLink + i] = body[i];
  set(kStatus, 2, read(kStatus, 2) | kCapabilitiesList);
  return at;
}

}  // namespace lodge::devices::pci
