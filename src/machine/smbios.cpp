#include "machine/smbios.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/append_little.hpp"
#include "base/fnv1a.hpp"
#include "machine/acpi/header.hpp"

namespace lodge::machine {

namespace {

// One structure (6.1): its formatted area, then its strings, which it names by their numbers.
class Structure {
 public:
  Structure(uint8_t type, uint16_t handle) {
    number(type, 1);
    number(0, 1);  // the length, which end() knows
    number(handle, 2);
  }
  Structure& number(uint64_t value, unsigned bytes) {
    append_little(bytes_, value, bytes);
    return *this;
  }
  Structure& text(std::string_view words) {
    strings_.emplace_back(words);
    return number(strings_.size(), 1);
  }
  Structure& bytes(std::span<const uint8_t> some) {
    bytes_.insert(bytes_.end(), some.begin(), some.end());
    return *this;
  }
  [[nodiscard]] std::vector<uint8_t> end() {
    bytes_[1] = static_cast<uint8_t>(bytes_.size());
    for (const std::string& words : strings_) {
      bytes_.insert(bytes_.end(), words.begin(), words.end());
      bytes_.push_back(0);
    }
    if (strings_.empty()) bytes_.push_back(0);
    bytes_.push_back(0);
    return std::move(bytes_);
  }

 private:
  std::vector<uint8_t> bytes_;
  std::vector<std::string> strings_;
};

constexpr uint16_t kSystem = 0x0100, kChassis = 0x0300, kProcessor = 0x0400, kMemoryArray = 0x1000, kMemoryDevice = 0x1100,
                   kMappedLow = 0x1300, kMappedHigh = 0x1301, kBootInformation = 0x2000, kEnd = 0x7f00;
constexpr uint16_t kNoHandle = 0xffff, kNoErrorHandle = 0xfffe;
constexpr const char* kMaker = "Lodge";

std::vector<uint8_t> system(const Config& config) {  // 7.2
  constexpr uint8_t kPowerSwitch = 6;
  std::array<uint8_t, 16> uuid = derived_uuid(config.name);
  // Its first three fields are little-endian here (7.2.1).
  std::reverse(uuid.begin(), uuid.begin() + 4);
  std::reverse(uuid.begin() + 4, uuid.begin() + 6);
  std::reverse(uuid.begin() + 6, uuid.begin() + 8);
  return Structure(1, kSystem)
      .text(kMaker)
      .text(config.kind() == Kind::Q35 ? "PC (Q35 + ICH9)" : "PC (440FX + PIIX)")
      .text("1")
      .number(0, 1)
      .bytes(uuid)
      .number(kPowerSwitch, 1)
      .number(0, 2)
      .end();
}

std::vector<uint8_t> chassis() {  // 7.4
  constexpr uint8_t kOther = 1, kSafe = 3, kUnknown = 2;
  return Structure(3, kChassis)
      .text(kMaker)
      .number(kOther, 1)
      .number(0, 3)
      .number(kSafe, 1)
      .number(kSafe, 1)
      .number(kSafe, 1)
      .number(kUnknown, 1)
      .number(0, 8)
      .end();
}

std::vector<uint8_t> processor(uint32_t cores, uint64_t signature) {  // 7.5
  constexpr uint8_t kCentral = 3, kOther = 1, kPopulatedAndEnabled = 0x41, kUnknownFeatures = 2;
  const auto count = static_cast<uint8_t>(cores);
  return Structure(4, kProcessor)
      .text("CPU 0")
      .number(kCentral, 1)
      .number(kOther, 1)
      .text(kMaker)
      .number(signature, 8)
      .number(0, 8)  // version, voltage, clocks: not known
      .number(kPopulatedAndEnabled, 1)
      .number(kOther, 1)
      .number(kNoHandle, 2)  // caches
      .number(kNoHandle, 2)
      .number(kNoHandle, 2)
      .number(0, 3)
      .number(count, 1)
      .number(count, 1)
      .number(count, 1)
      .number(kUnknownFeatures, 2)
      .number(kOther, 2)
      .end();
}

std::vector<uint8_t> memory_array(uint64_t bytes) {  // 7.17
  constexpr uint8_t kOther = 1, kSystemMemory = 3, kMultiBitEcc = 6;
  constexpr uint32_t kSeeExtended = 0x80000000;
  const uint64_t kib = bytes >> 10;
  return Structure(16, kMemoryArray)
      .number(kOther, 1)
      .number(kSystemMemory, 1)
      .number(kMultiBitEcc, 1)
      .number(std::min<uint64_t>(kib, kSeeExtended), 4)
      .number(kNoErrorHandle, 2)
      .number(1, 2)
      .number(kib < kSeeExtended ? 0 : bytes, 8)
      .end();
}

std::vector<uint8_t> memory_device(uint64_t bytes) {  // 7.18
  constexpr uint16_t kSeeExtended = 0x7fff, kUnknownWidth = 0xffff;
  constexpr uint8_t kDimm = 9, kRam = 7, kOtherDetail = 2;
  const uint64_t mib = bytes >> 20;
  return Structure(17, kMemoryDevice)
      .number(kMemoryArray, 2)
      .number(kNoErrorHandle, 2)
      .number(kUnknownWidth, 2)
      .number(kUnknownWidth, 2)
      .number(std::min<uint64_t>(mib, kSeeExtended), 2)
      .number(kDimm, 1)
      .number(0, 1)
      .text("DIMM 0")
      .number(0, 1)
      .number(kRam, 1)
      .number(kOtherDetail, 2)
      .number(0, 2)
      .text(kMaker)
      .number(0, 4)
      .number(mib < kSeeExtended ? 0 : mib, 4)
      .number(0, 8)
      .end();
}

std::vector<uint8_t> mapped(uint16_t handle, uint64_t base, uint64_t bytes) {  // 7.20
  constexpr uint64_t kSeeExtended = 0xffffffff;
  const uint64_t last = base + bytes - 1;
  const bool extended = (last >> 10) >= kSeeExtended;
  return Structure(19, handle)
      .number(extended ? kSeeExtended : base >> 10, 4)
      .number(extended ? kSeeExtended : last >> 10, 4)
      .number(kMemoryArray, 2)
      .number(1, 1)
      .number(extended ? base : 0, 8)
      .number(extended ? last : 0, 8)
      .end();
}

// The 32-bit entry point (5.2.1). Firmware puts the address in, and mends the sums.
std::vector<uint8_t> entry_point(size_t table_bytes, size_t largest, size_t count) {
  constexpr uint8_t kLength = 0x1f, kMajor = 2, kMinor = 8;
  constexpr size_t kChecksum = 4, kMiddle = 0x10, kMiddleChecksum = 0x15;
  std::vector<uint8_t> bytes{'_', 'S', 'M', '_', 0, kLength, kMajor, kMinor};
  const auto number = [&](uint64_t value, unsigned size) { append_little(bytes, value, size); };
  number(largest, 2);
  number(0, 6);
  for (const char letter : std::string_view("_DMI_")) bytes.push_back(static_cast<uint8_t>(letter));
  number(0, 1);
  number(table_bytes, 2);
  number(0, 4);
  number(count, 2);
  number(kMajor << 4 | kMinor, 1);
  bytes[kMiddleChecksum] = acpi::checksum_of(std::span(bytes).subspan(kMiddle));
  bytes[kChecksum] = acpi::checksum_of(bytes);
  return bytes;
}

}  // namespace

std::array<uint8_t, 16> derived_uuid(const std::string& name) {
  const std::array<uint64_t, 2> halves{fnv1a(name), fnv1a(name, 0x84222325cbf29ce4)};
  std::array<uint8_t, 16> uuid{};
  std::memcpy(uuid.data(), halves.data(), uuid.size());
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0f) | 0x80);
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

SmbiosTables build_smbios(const Config& config, const MemoryMap& map, uint64_t signature) {
  const uint64_t memory = map.low_end + map.above_size;
  std::vector<std::vector<uint8_t>> all{system(config),
                                        chassis(),
                                        processor(config.vcpus, signature),
                                        memory_array(memory),
                                        memory_device(memory),
                                        mapped(kMappedLow, 0, map.low_end)};
  if (map.above_size > 0) all.push_back(mapped(kMappedHigh, kAbove4G, map.above_size));
  all.push_back(Structure(32, kBootInformation).number(0, 7).end());
  all.push_back(Structure(127, kEnd).end());
  SmbiosTables tables;
  size_t largest = 0;
  for (const auto& structure : all) {
    largest = std::max(largest, structure.size());
    tables.structures.insert(tables.structures.end(), structure.begin(), structure.end());
  }
  tables.anchor = entry_point(tables.structures.size(), largest, all.size());
  return tables;
}

Result<> offer_smbios(devices::FwCfg& fw_cfg, const Config& config, const MemoryMap& map, uint64_t signature) {
  SmbiosTables tables = build_smbios(config, map, signature);
  TRY(fw_cfg.add_file("etc/smbios/smbios-anchor", std::move(tables.anchor)));
  return fw_cfg.add_file("etc/smbios/smbios-tables", std::move(tables.structures));
}

}  // namespace lodge::machine
