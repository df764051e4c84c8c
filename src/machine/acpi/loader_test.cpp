// The script carried out as firmware does it, into a memory of the test's own.
#include "machine/acpi/loader.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <map>
#include <numeric>
#include <string>

#include "machine/acpi/dsdt.hpp"

namespace lodge::machine::acpi {
namespace {

uint64_t load(std::span<const uint8_t> bytes, size_t at, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, size);
  return value;
}

class Firmware {
 public:
  explicit Firmware(const Blobs& blobs) {
    files_["etc/acpi/tables"] = {kTablesAt, blobs.tables};
    files_["etc/acpi/rsdp"] = {kRsdpAt, blobs.rsdp};
    EXPECT_EQ(blobs.script.size() % 128, 0U);
    for (size_t at = 0; at < blobs.script.size(); at += 128) carry_out(std::span(blobs.script).subspan(at, 128));
  }
  [[nodiscard]] std::span<const uint8_t> rsdp() { return files_["etc/acpi/rsdp"].bytes; }
  // The table at an address; the test fails if there is none.
  [[nodiscard]] std::span<const uint8_t> at(uint64_t address) {
    const File& file = files_["etc/acpi/tables"];
    EXPECT_GE(address, kTablesAt);
    EXPECT_LT(address - kTablesAt, file.bytes.size());
    const auto rest = std::span<const uint8_t>(file.bytes).subspan(address - kTablesAt);
    return rest.first(load(rest, 4, 4));
  }

  static constexpr uint64_t kTablesAt = 0x7fe0000, kRsdpAt = 0xf5000;

 private:
  struct File {
    uint64_t address;
    std::vector<uint8_t> bytes;
    bool allocated = false;
  };
  File& file(std::span<const uint8_t> command, size_t at) {
    const std::string name(reinterpret_cast<const char*>(command.data() + at));
    EXPECT_TRUE(files_.contains(name)) << name;
    return files_[name];
  }
  void carry_out(std::span<const uint8_t> command) {
    if (load(command, 0, 4) == 0) return;
    File& first = file(command, 4);
    switch (load(command, 0, 4)) {
      case 1:
        EXPECT_EQ(first.address % load(command, 60, 4), 0U);
        EXPECT_EQ(command[64], first.address < 0x100000 ? 2 : 1);
        first.allocated = true;
        break;
      case 2: {
        const File& target = file(command, 60);
        const size_t at = load(command, 116, 4), size = command[120];
        ASSERT_LE(at + size, first.bytes.size());
        EXPECT_TRUE(first.allocated && target.allocated);
        const uint64_t value = load(first.bytes, at, size) + target.address;
        std::memcpy(first.bytes.data() + at, &value, size);
        break;
      }
      case 3: {
        const size_t at = load(command, 60, 4), start = load(command, 64, 4), length = load(command, 68, 4);
        ASSERT_LE(start + length, first.bytes.size());
        const auto area = std::span(first.bytes).subspan(start, length);
        first.bytes[at] = static_cast<uint8_t>(-std::accumulate(area.begin(), area.end(), 0U));
        break;
      }
      default: FAIL() << "unknown command";
    }
  }
  std::map<std::string, File> files_;
};

unsigned sum(std::span<const uint8_t> bytes) { return std::accumulate(bytes.begin(), bytes.end(), 0U) % 256; }

TEST(AcpiLoader, TheScriptLeavesLinkedAndSummedTables) {
  const FixedHardware hardware{.base = 0xb000, .layout = {.gpe0_block = 0x0c, .soft_off_sleep = 0}, .vga = true};
  const std::array<uint8_t, 1> level_lines{9};
  const devices::pci::Window configuration{0xb0000000, 256 << 20};
  Firmware firmware(build_blobs(2, {.hardware = hardware,
                                    .dsdt = build_i440fx_dsdt(2, {.map = MemoryMap(1 << 30)}),
                                    .level_lines = level_lines,
                                    .configuration = configuration}));
  const auto rsdp = firmware.rsdp();
  ASSERT_EQ(rsdp.size(), 20U);
  EXPECT_EQ(sum(rsdp), 0U);
  const auto rsdt = firmware.at(load(rsdp, 16, 4));
  EXPECT_EQ(std::memcmp(rsdt.data(), "RSDT", 4), 0);
  EXPECT_EQ(sum(rsdt), 0U);
  ASSERT_EQ(rsdt.size(), 36U + 4 * 4);
  const auto fadt = firmware.at(load(rsdt, 36, 4));
  EXPECT_EQ(std::memcmp(fadt.data(), "FACP", 4), 0);
  EXPECT_EQ(sum(fadt), 0U);
  EXPECT_EQ(load(fadt, 56, 4), 0xb000U) << "PM1a_EVT_BLK";
  EXPECT_EQ(load(fadt, 80, 4), 0xb00cU) << "GPE0_BLK";
  EXPECT_EQ(load(fadt, 109, 2) & 4, 0U) << "there is a VGA";
  const auto madt = firmware.at(load(rsdt, 40, 4));
  EXPECT_EQ(std::memcmp(madt.data(), "APIC", 4), 0);
  EXPECT_EQ(sum(madt), 0U);
  const auto hpet = firmware.at(load(rsdt, 44, 4));
  EXPECT_EQ(std::memcmp(hpet.data(), "HPET", 4), 0);
  EXPECT_EQ(load(hpet, 36, 4), 0x8086a201U);
  EXPECT_EQ(load(hpet, 44, 8), 0xfed00000U);
  const auto mcfg = firmware.at(load(rsdt, 48, 4));
  EXPECT_EQ(std::memcmp(mcfg.data(), "MCFG", 4), 0);
  EXPECT_EQ(load(mcfg, 44, 8), configuration.base);
  EXPECT_EQ(load(mcfg, 54, 2), 0xff00U) << "buses 0 to 255";
  const auto facs = firmware.at(load(fadt, 36, 4));
  EXPECT_EQ(std::memcmp(facs.data(), "FACS", 4), 0);
  EXPECT_EQ(load(fadt, 36, 4) % 64, 0U);
  EXPECT_EQ(load(fadt, 40, 4), load(fadt, 140, 8));
  const auto dsdt = firmware.at(load(fadt, 40, 4));
  EXPECT_EQ(std::memcmp(dsdt.data(), "DSDT", 4), 0);
  EXPECT_EQ(sum(dsdt), 0U);
}

// Its length is told before the chips have been placed.
TEST(AcpiLoader, LengthsDoNotDependOnWhereTheChipsAre) {
  const MemoryMap map(1 << 30);
  const std::array<uint8_t, 1> level_lines{9};
  const auto blobs = [&](const std::optional<devices::pci::Window>& configuration) {
    return build_blobs(254, {.hardware = {},
                             .dsdt = build_q35_dsdt(254, {.map = map, .floppy = true}, configuration),
                             .level_lines = level_lines,
                             .configuration = configuration});
  };
  const Blobs before = blobs({}), after = blobs(devices::pci::Window{0xb0000000, 256 << 20});
  EXPECT_EQ(before.tables.size(), after.tables.size());
  EXPECT_EQ(before.script.size(), after.script.size());
  EXPECT_NE(before.tables, after.tables);
}

}  // namespace
}  // namespace lodge::machine::acpi
