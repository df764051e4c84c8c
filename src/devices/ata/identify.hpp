// Pieces of the 256 words of IDENTIFY DEVICE and IDENTIFY PACKET DEVICE.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lodge::devices::ata {

// Text stands in words with the first character in the upper byte, filled with blanks (ACS-3, 3.3.10).
inline void put_text(std::span<uint16_t> words, std::string_view text) {
  for (size_t i = 0; i < words.size(); ++i) {
    const auto at = [&](size_t index) { return static_cast<uint8_t>(index < text.size() ? text[index] : ' '); };
    words[i] = static_cast<uint16_t>(at(2 * i) << 8 | at(2 * i + 1));
  }
}

// SET FEATURES, transfer modes: the class in the upper bits, the mode in the lower.
constexpr uint8_t kModeClass = 0xf8, kUdma = 0x40, kMultiwordDma = 0x20;

// How a drive is connected.
struct Connection {
  bool serial, second;  // second: device 1 on a parallel cable
};

// How fast a drive is, and how fast it has been told to be (words 49, 50, 63 to 68, 76, 88, 93 and 222).
inline void put_transfer_modes(std::array<uint16_t, 256>& words, uint8_t selected, Connection connection) {
  words[49] = 0x0f00;  // IORDY, LBA, DMA
  words[50] = 0x4000;
  words[63] = 0x0007;                                   // multiword DMA 0 to 2
  words[64] = 0x0003;                                   // PIO 3 and 4
  words[65] = words[66] = words[67] = words[68] = 120;  // ns a cycle
  words[88] = 0x003f;                                   // Ultra DMA 0 to 5
  const unsigned mode = selected & 7;
  if ((selected & kModeClass) == kUdma) words[88] |= static_cast<uint16_t>(0x100 << mode);
  if ((selected & kModeClass) == kMultiwordDma) words[63] |= static_cast<uint16_t>(0x100 << mode);
  if (!connection.serial) {
    words[93] = 0x6001 | (connection.second ? 0x0100 : 0x0008);  // an 80-conductor cable
    return;
  }
  words[76] = 0x0006;            // 1.5 and 3 Gbit/s
  words[80] |= 0x0100;           // ATA8-ACS, to which word 222 belongs
  words[222] = 0x1000 | 0x001e;  // serial; SATA 1.0a to 2.6
}

// Of a drive whose user gave none.
inline std::string default_serial(unsigned number) { return fmt::format("LD{:08}", number); }

// Word 255: a signature, and the byte that makes the sum of all 512 zero (ACS-3, 7.12.7.86).
inline void set_checksum(std::array<uint16_t, 256>& words) {
  constexpr uint16_t kSignature = 0xa5;
  words[255] = kSignature;
  uint8_t sum = 0;
  for (const uint16_t word : words) sum = static_cast<uint8_t>(sum + (word & 0xff) + (word >> 8));
  words[255] = static_cast<uint16_t>(kSignature | (0x100 - sum) << 8);
}

}  // namespace lodge::devices::ata
