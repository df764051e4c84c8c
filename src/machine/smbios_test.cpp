#include "machine/smbios.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <numeric>

namespace lodge::machine {
namespace {

// The structures taken apart as an operating system does it.
struct Parsed {
  std::vector<uint8_t> formatted;
  std::vector<std::string> strings;
  [[nodiscard]] uint64_t number(size_t at, size_t bytes) const {
    uint64_t value = 0;
    EXPECT_LE(at + bytes, formatted.size());
    std::memcpy(&value, formatted.data() + at, bytes);
    return value;
  }
  [[nodiscard]] std::string text(size_t at) const { return strings.at(formatted.at(at) - 1); }
};

std::multimap<unsigned, Parsed> parse(const std::vector<uint8_t>& bytes) {
  std::multimap<unsigned, Parsed> all;
  size_t at = 0;
  while (at + 4 <= bytes.size()) {
    const size_t length = bytes[at + 1];
    Parsed parsed{.formatted = {bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + length)},
                  .strings = {}};
    size_t end = at + length;
    while (bytes.at(end) != 0) {
      parsed.strings.emplace_back(reinterpret_cast<const char*>(&bytes[end]));
      end += parsed.strings.back().size() + 1;
    }
    if (parsed.strings.empty()) {
      EXPECT_EQ(bytes.at(end), 0);
      ++end;
    }
    at = end + 1;
    all.emplace(parsed.formatted[0], parsed);
  }
  EXPECT_EQ(at, bytes.size());
  return all;
}

Config config_of(uint64_t memory, uint32_t vcpus) {
  Config config;
  config.name = "test";
  config.machine = Kind::Pc;
  config.memory = memory;
  config.vcpus = vcpus;
  return config;
}

TEST(Smbios, TheAnchorSumsUp) {
  const Config config = config_of(kGiB, 2);
  const SmbiosTables tables = build_smbios(config, MemoryMap(config.memory), 0x178bfbff00a00f11);
  ASSERT_EQ(tables.anchor.size(), 0x1fu);
  EXPECT_EQ(std::memcmp(tables.anchor.data(), "_SM_", 4), 0);
  EXPECT_EQ(std::accumulate(tables.anchor.begin(), tables.anchor.end(), 0u) % 256, 0u);
  EXPECT_EQ(std::accumulate(tables.anchor.begin() + 0x10, tables.anchor.end(), 0u) % 256, 0u);
  EXPECT_EQ(static_cast<size_t>(tables.anchor[0x16] | tables.anchor[0x17] << 8), tables.structures.size());
  EXPECT_EQ(static_cast<size_t>(tables.anchor[0x1c]), parse(tables.structures).size());
}

TEST(Smbios, SaysWhatTheMachineHas) {
  const Config config = config_of(6 * kGiB, 3);
  const auto all = parse(build_smbios(config, MemoryMap(config.memory), 0x178bfbff00a00f11).structures);
  const Parsed& system = all.find(1)->second;
  EXPECT_EQ(system.formatted.size(), 0x1bu);
  EXPECT_EQ(system.text(4), "Lodge");
  EXPECT_EQ(system.text(5), "PC (440FX + PIIX)");
  EXPECT_EQ(all.find(3)->second.formatted.size(), 0x15u);
  const Parsed& processor = all.find(4)->second;
  EXPECT_EQ(processor.formatted.size(), 0x2au);
  EXPECT_EQ(processor.number(8, 8), 0x178bfbff00a00f11u);
  EXPECT_EQ(processor.number(0x18, 1), 0x41u);
  EXPECT_EQ(processor.number(0x23, 1), 3u);
  EXPECT_EQ(all.find(16)->second.formatted.size(), 0x17u);
  EXPECT_EQ(all.find(16)->second.number(7, 4), 6 * kGiB >> 10);
  EXPECT_EQ(all.find(17)->second.formatted.size(), 0x28u);
  EXPECT_EQ(all.find(17)->second.number(0x0c, 2), 6144u);
  EXPECT_EQ(all.count(19), 2u);
  const Parsed& high = std::next(all.find(19))->second;
  EXPECT_EQ(high.formatted.size(), 0x1fu);
  EXPECT_EQ(high.number(4, 4), 4 * kGiB >> 10);
  EXPECT_EQ(high.number(8, 4), (7 * kGiB >> 10) - 1);
  EXPECT_EQ(all.count(127), 1u);
}

TEST(Smbios, LargeMachinesUseTheWideFields) {
  const Config config = config_of(kMaximumMemory, 254);
  const auto all = parse(build_smbios(config, MemoryMap(config.memory), 0).structures);
  EXPECT_EQ(all.find(17)->second.number(0x0c, 2), 0x7fffu);
  EXPECT_EQ(all.find(17)->second.number(0x1c, 4), kMaximumMemory >> 20);
  EXPECT_EQ(all.find(4)->second.number(0x23, 1), 254u);
}

TEST(Smbios, TheUuidIsTheNames) {
  EXPECT_EQ(derived_uuid("a"), derived_uuid("a"));
  EXPECT_NE(derived_uuid("a"), derived_uuid("b"));
  EXPECT_EQ(derived_uuid("a")[6] >> 4, 8);
  EXPECT_EQ(derived_uuid("a")[8] >> 6, 2);
}

}  // namespace
}  // namespace lodge::machine
