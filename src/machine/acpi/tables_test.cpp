#include "machine/acpi/tables.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>

#include "machine/acpi/dsdt.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine::acpi {
namespace {

constexpr std::array<uint8_t, 1> kLines{kSciIrq};

uint8_t sum(std::span<const uint8_t> bytes) { return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0u)); }

uint32_t load32(std::span<const uint8_t> bytes, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, 4);
  return value;
}

void expect_valid(std::span<const uint8_t> table, const char* signature) {
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(table.data()), 4), signature);
  EXPECT_EQ(load32(table, 4), table.size());
  EXPECT_EQ(sum(table), 0) << "checksum";
}

TEST(AcpiTables, HeadersAreValid) {
  expect_valid(build_direct_dsdt(1), "DSDT");
  expect_valid(build_madt(1, kLines), "APIC");
  expect_valid(build_fadt({}, 0xe0100, 0x9f400), "FACP");
  expect_valid(build_hpet(), "HPET");
  expect_valid(build_mcfg({kPciConfiguration, kPciConfigurationBytes}), "MCFG");
}

TEST(AcpiTables, MadtListsProcessorsIoapicAndOverrides) {
  const auto madt = build_madt(3, kLines);
  int processors = 0, ioapics = 0, overrides = 0;
  for (size_t at = 44; at < madt.size(); at += madt[at + 1]) {
    ASSERT_GT(madt[at + 1], 0);
    if (madt[at] == 0) {
      EXPECT_EQ(madt[at + 3], processors++);
    }
    if (madt[at] == 1) {
      ++ioapics;
      EXPECT_EQ(load32(madt, at + 4), 0xfec00000u);
    }
    if (madt[at] == 2) {
      ++overrides;
      if (madt[at + 3] == 0) {
        EXPECT_EQ(load32(madt, at + 4), 2u);
      }
      if (madt[at + 3] == 9) {
        EXPECT_EQ(madt[at + 8], 0x0d);
      }
    }
  }
  EXPECT_EQ(processors, 3);
  EXPECT_EQ(ioapics, 1);
  EXPECT_EQ(overrides, 2);
}

// PCI Firmware 3.2, table 4-3.
TEST(AcpiTables, McfgTellsWhereConfigurationSpaceIs) {
  const auto mcfg = build_mcfg({kPciConfiguration, kPciConfigurationBytes});
  ASSERT_EQ(mcfg.size(), 60u);
  EXPECT_EQ(load32(mcfg, 44), kPciConfiguration);
  EXPECT_EQ(load32(mcfg, 48), 0u);
  EXPECT_EQ(load32(mcfg, 52), 0u) << "segment group 0, bus 0 to bus 0";
}

TEST(AcpiTables, FadtOffersPowerButtonResetAndNoSmi) {
  const auto fadt = build_fadt({}, 0xe0100, 0x9f400);
  EXPECT_EQ(load32(fadt, 48), 0u) << "SMI_CMD: ACPI mode is always on";
  const uint32_t flags = load32(fadt, 112);
  EXPECT_EQ(flags & 1 << 4, 0u) << "a fixed power button";
  EXPECT_NE(flags & 1 << 10, 0u) << "the reset register";
  EXPECT_EQ(load32(fadt, 120), 0xcf9u);
  EXPECT_EQ(fadt[128], 6);
}

TEST(AcpiTables, RsdpInMemoryLeadsToAllTables) {
  const MemoryMap map(64 << 20);
  auto memory = memory::GuestMemory::create(map.backing());
  ASSERT_TRUE(memory);
  const auto rsdp = place_tables(**memory, 254);
  ASSERT_TRUE(rsdp);
  std::array<uint8_t, 36> root;
  ASSERT_TRUE((*memory)->read(*rsdp, std::as_writable_bytes(std::span(root))));
  EXPECT_EQ(std::memcmp(root.data(), "RSD PTR ", 8), 0);
  EXPECT_EQ(sum(std::span(root).first(20)), 0);
  EXPECT_EQ(sum(root), 0);
  const uint64_t xsdt_at = load32(root, 24);
  std::array<uint8_t, 60> xsdt;
  ASSERT_TRUE((*memory)->read(xsdt_at, std::as_writable_bytes(std::span(xsdt))));
  expect_valid(xsdt, "XSDT");
  for (size_t entry : {36, 44, 52}) {
    const uint64_t at = load32(xsdt, entry);
    EXPECT_GE(at, kRom);
    EXPECT_LT(at, kRomEnd);
  }
}

// iasl is ACPICA's own compiler: what it takes apart without an error, an operating system understands. Its text.
std::string disassemble(const std::vector<uint8_t>& table) {
  std::string folder = (std::string(testing::TempDir()) + "/lodge-acpi-XXXXXX");
  EXPECT_NE(mkdtemp(folder.data()), nullptr);
  std::ofstream(folder + "/t.aml", std::ios::binary)
      .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
  const std::string command = "cd '" + folder + "' && iasl -d t.aml >out 2>&1 && iasl -oa -f t.dsl >out2 2>&1";
  EXPECT_EQ(system(command.c_str()), 0);
  std::ifstream in(folder + "/t.dsl");
  std::ostringstream text;
  text << in.rdbuf();
  EXPECT_EQ(system(("rm -r '" + folder + "'").c_str()), 0);
  return text.str();
}

bool has_iasl() { return system("command -v iasl >/dev/null 2>&1") == 0; }

TEST(AcpiTables, IaslDisassemblesTheDirectDsdt) {
  if (!has_iasl()) GTEST_SKIP() << "iasl (package acpica-tools) is not installed";
  const std::string text = disassemble(build_direct_dsdt(254));
  for (const char* part : {"_S5", "PNP0501", "0x03F8", "PNP0A03", "0x001FFFFF", "C0FD"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
}

TEST(AcpiTables, IaslDisassemblesThe440FxDsdt) {
  if (!has_iasl()) GTEST_SKIP() << "iasl (package acpica-tools) is not installed";
  const std::string text = disassemble(build_i440fx_dsdt(2, {.map = MemoryMap(uint64_t{6} << 30)}));
  for (const char* part : {"LNKA", "LNKD", "PNP0C0F", "PNP0F13", "OperationRegion (PIRQ, PCI_Config, 0x60, 0x04)",
                           "Method (_SRS, 1, Serialized)", "Return (BUF0)", "Level, ActiveHigh, Shared", "0x00000001C0000000"})
    EXPECT_NE(text.find(part), std::string::npos) << part << text;
}

TEST(AcpiTables, IaslDisassemblesTheQ35Dsdt) {
  if (!has_iasl()) GTEST_SKIP() << "iasl (package acpica-tools) is not installed";
  const std::string text = disassemble(
      build_q35_dsdt(2, {.map = MemoryMap(uint64_t{6} << 30, kQ35Hole), .floppy = true}, devices::pci::Window{0xb0000000, 256 << 20}));
  for (const char* part : {"LNKA", "LNKH", "PNP0A08", "PNP0700", "PNP0700", "OperationRegion (PIRE, PCI_Config, 0x68, 0x04)",
                           "_PIC, 1, Serialized)", "Method (_OSC, 4, Serialized)", "If (\\PICF)", "Return (PRTA)", "0x80000000, ",
                           "0x30000000, ", "0xC0000000, ", "0x3EC00000, ", "0xB0000000"})
    EXPECT_NE(text.find(part), std::string::npos) << part << text;
  // Device 1's INTA# leads to PIRQF, device 31's to PIRQA.
  EXPECT_NE(text.find("0x15"), std::string::npos);
  EXPECT_NE(text.find("0x10"), std::string::npos);
}

}  // namespace
}  // namespace lodge::machine::acpi
