// Pieces of the 256 words of IDENTIFY DEVICE and IDENTIFY PACKET DEVICE.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace lodge::devices::ata {

// Text stands in words with the first character in the upper byte, filled with blanks (ACS-3, 3.3.10).
inline void put_text(std::span<uint16_t> words, std::string_view text) {
  for (size_t i = 0; i < words.size(); ++i) {
    const auto at = [&](size_t index) { return static_cast<uint8_t>(index < text.size() ? text[index] : ' '); };
    words[i] = static_cast<uint16_t>(at(2 * i) << 8 | at(2 * i + 1));
  }
}

// Word 255: a signature, and the byte that makes the sum of all 512 zero (ACS-3, 7.12.7.86).
inline void set_checksum(std::array<uint16_t, 256>& words) {
  constexpr uint16_t kSignature = 0xa5;
  words[255] = kSignature;
  uint8_t sum = 0;
  for (const uint16_t word : words) sum = static_cast<uint8_t>(sum + (word & 0xff) + (word >> 8));
  words[255] = static_cast<uint16_t>(kSignature | (0x100 - sum) << 8);
}

}  // namespace lodge::devices::ata
