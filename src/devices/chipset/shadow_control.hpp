// Which of the 13 areas from 0xC0000 to 0xFFFFF show main memory: the PAM registers of Intel's host bridges (82441FX, 3.2.16;
// 4th Generation Core, 3.1.20-26), seven bytes with two nibbles each.
//
// Threads: those of configuration space, one access at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

namespace lodge::devices::chipset {

struct ShadowArea {
  uint32_t base, size;  // bytes, guest-physical
};

// What of an area is main memory's; the rest is the bus's (ROMs).
struct ShadowState {
  bool reads = false, writes = false;
  bool operator==(const ShadowState&) const = default;
};

class ShadowControl {
 public:
  static constexpr unsigned kRegisters = 7, kAreas = 13;
  static constexpr uint8_t kWritable = 0x77;  // of a PAM register; its first one has the upper nibble only
  static constexpr uint8_t kFirstWritable = 0x70;
  using Changed = std::function<void(const ShadowArea& area, ShadowState state)>;

  explicit ShadowControl(Changed changed) : changed_(std::move(changed)) {}

  // 0xF0000 with 64 KiB, then twelve of 16 KiB from 0xC0000 up.
  [[nodiscard]] static constexpr ShadowArea area(unsigned index) {
    return index == 0 ? ShadowArea{0xf0000, 0x10000} : ShadowArea{0xc0000 + (index - 1) * 0x4000, 0x4000};
  }
  // The PAM register with that number (0 to 6) holds this now.
  void written(unsigned pam, uint8_t value);

 private:
  void set(unsigned area, unsigned nibble);
  Changed changed_;
  std::array<ShadowState, kAreas> states_{};
};

}  // namespace lodge::devices::chipset
