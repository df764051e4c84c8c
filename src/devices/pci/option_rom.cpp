#include "devices/pci/option_rom.hpp"

#include <algorithm>
#include <numeric>
#include <string_view>

namespace lodge::devices::pci {

namespace {

// The header (table 5-1 of PCI Firmware 3.0, and of PCI 3.0 6.3.1.1), and the PCI data structure that it points to (6.3.1.2).
constexpr size_t kHeaderBytes = 0x1a, kUnit = 512, kPointer = 0x18, kFiller = 6;
constexpr size_t kDataBytes = 0x18, kVendor = 4, kDevice = 6, kLength = 0x10, kCodeType = 0x14, kIndicator = 0x15;
constexpr uint8_t kPcAt = 0, kLast = 0x80;

uint16_t word(std::span<const uint8_t> bytes, size_t at) { return static_cast<uint16_t>(bytes[at] | bytes[at + 1] << 8); }
void put_word(std::span<uint8_t> bytes, size_t at, uint16_t value) {
  bytes[at] = static_cast<uint8_t>(value);
  bytes[at + 1] = static_cast<uint8_t>(value >> 8);
}
uint8_t sum(std::span<const uint8_t> bytes) { return std::accumulate(bytes.begin(), bytes.end(), uint8_t{0}); }

}  // namespace

std::vector<uint8_t> option_rom_for(std::span<const uint8_t> rom, uint16_t vendor, uint16_t device) {
  std::vector<uint8_t> made(rom.begin(), rom.end());
  constexpr std::string_view kDataSignature = "PCIR";
  for (size_t at = 0; made.size() - at >= kHeaderBytes;) {
    const std::span<uint8_t> image = std::span(made).subspan(at);
    const size_t data_at = word(image, kPointer);
    if (word(image, 0) != 0xaa55 || data_at > image.size() || image.size() - data_at < kDataBytes) break;
    const std::span<uint8_t> data = image.subspan(data_at);
    const size_t length = word(data, kLength) * kUnit;
    if (!std::ranges::equal(data.first(4), kDataSignature) || length < data_at + kDataBytes || length > image.size()) break;
    const std::span<uint8_t> whole = image.first(length);
    const uint8_t before = sum(whole);
    put_word(data, kVendor, vendor);
    put_word(data, kDevice, device);
    // The byte behind the entry's jump is nobody's.
    if (data[kCodeType] == kPcAt) whole[kFiller] = static_cast<uint8_t>(whole[kFiller] + before - sum(whole));
    if (data[kIndicator] & kLast) break;
    at += length;
  }
  return made;
}

}  // namespace lodge::devices::pci
