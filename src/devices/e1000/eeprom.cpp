#include "devices/e1000/eeprom.hpp"

#include <numeric>
#include <utility>

namespace lodge::devices::e1000 {

namespace {

// Chapter 5.6.
constexpr unsigned kMac = 0, kCompatibility = 3, kInitControl1 = 0x0a, kSubsystem = 0x0b, kSubsystemVendor = 0x0c, kDevice = 0x0d,
                   kVendor = 0x0e, kInitControl2 = 0x0f, kChecksum = 0x3f;
constexpr uint16_t kSum = 0xbaba;  // of all words
constexpr uint16_t kIntel = 0x8086;

// 93C46: a start bit, two of the instruction, six of address.
constexpr unsigned kInstructionBits = 9, kAddressBits = 6;
constexpr uint32_t kRead = 0b110;

}  // namespace

Eeprom::Eeprom(const net::MacAddress& mac, uint16_t device) {
  for (unsigned i = 0; i < 3; ++i) words_[kMac + i] = static_cast<uint16_t>(mac[2 * i] | mac[2 * i + 1] << 8);
  words_[kCompatibility] = 0x0420;  // a copper adapter for workstations
  words_[kInitControl1] = 0x640a;   // signature, identities from here
  words_[kSubsystem] = device;
  words_[kSubsystemVendor] = kIntel;
  words_[kDevice] = device;
  words_[kVendor] = kIntel;
  words_[kInitControl2] = 0x3040;
  words_[kChecksum] = static_cast<uint16_t>(kSum - std::accumulate(words_.begin(), words_.end() - 1, 0u));
}

void Eeprom::set_pins(bool select, bool clock, bool in) {
  const bool was_selected = std::exchange(select_, select), was_high = std::exchange(clock_, clock);
  const bool rises = clock && !was_high;
  if (!select || !was_selected) {
    bits_ = 0;
    received_ = 0;
    reading_ = false;
    out_ = true;
  }
  if (!select || !rises) return;
  if (reading_) {
    // One word after the other, each with its highest bit first.
    if (bit_ == 0) {
      bit_ = 16;
      address_ = (address_ + 1) % kWords;
    }
    out_ = (words_[address_] >> --bit_ & 1) != 0;
    return;
  }
  if (bits_ == 0 && !in) return;  // no start bit yet
  received_ = received_ << 1 | (in ? 1 : 0);
  if (++bits_ != kInstructionBits) return;
  bits_ = 0;
  if (received_ >> kAddressBits != kRead) return;  // writes are not enabled
  reading_ = true;
  address_ = received_ & (kWords - 1);
  bit_ = 16;
  out_ = false;  // a zero goes before the data
}

}  // namespace lodge::devices::e1000
