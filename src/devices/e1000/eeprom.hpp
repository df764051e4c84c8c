// The serial EEPROM of an Ethernet controller (Microwire, 93C46: 64 words), as its pins show it, with what the controller expects there
// (Intel's PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, order number 317453, chapter 5).
//
// It can only be read. Threads: none of its own.
#pragma once

#include <array>
#include <cstdint>

#include "net/mac_address.hpp"

namespace lodge::devices::e1000 {

class Eeprom {
 public:
  static constexpr unsigned kWords = 64;

  // `device`: the controller's PCI device identity.
  Eeprom(const net::MacAddress& mac, uint16_t device);

  [[nodiscard]] uint16_t word(unsigned index) const { return words_[index % kWords]; }

  // The pins: chip select, clock and data in; the answer is data out.
  void set_pins(bool select, bool clock, bool in);
  [[nodiscard]] bool out() const { return out_; }

 private:
  std::array<uint16_t, kWords> words_{};
  bool select_ = false, clock_ = false, out_ = true;
  unsigned bits_ = 0;  // of the instruction, from its start bit on
  uint32_t received_ = 0;
  bool reading_ = false;
  unsigned address_ = 0, bit_ = 0;  // of the next bit that goes out; 16: the word's first one
};

}  // namespace lodge::devices::e1000
