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

#include "machine/memory_map.hpp"

namespace lodge::machine::acpi {
namespace {

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
  expect_valid(build_dsdt(1), "DSDT");
  expect_valid(build_madt(1), "APIC");
  expect_valid(build_fadt(0xe0100, 0x9f400), "FACP");
  expect_valid(build_mcfg(), "MCFG");
}

TEST(AcpiTables, MadtListsProcessorsIoapicAndOverrides) {
  const auto madt = build_madt(3);
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
  const auto mcfg = build_mcfg();
  ASSERT_EQ(mcfg.size(), 60u);
  EXPECT_EQ(load32(mcfg, 44), kPciConfiguration);
  EXPECT_EQ(load32(mcfg, 48), 0u);
  EXPECT_EQ(load32(mcfg, 52), 0u) << "segment group 0, bus 0 to bus 0";
}

TEST(AcpiTables, FadtOffersPowerButtonResetAndNoSmi) {
  const auto fadt = build_fadt(0xe0100, 0x9f400);
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

// iasl is ACPICA's own compiler: what it takes apart without an error, an operating system understands.
TEST(AcpiTables, IaslDisassemblesTheDsdt) {
  if (system("command -v iasl >/dev/null 2>&1") != 0) GTEST_SKIP() << "iasl (package acpica-tools) is not installed";
  std::string folder = (std::string(testing::TempDir()) + "/lodge-acpi-XXXXXX");
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const auto dsdt = build_dsdt(254);
  std::ofstream(folder + "/dsdt.aml", std::ios::binary)
      .write(reinterpret_cast<const char*>(dsdt.data()), static_cast<std::streamsize>(dsdt.size()));
  const std::string command = "cd '" + folder + "' && iasl -d dsdt.aml >out 2>&1 && iasl -oa -f dsdt.dsl >out2 2>&1";
  EXPECT_EQ(system(command.c_str()), 0);
  std::ifstream in(folder + "/dsdt.dsl");
  std::ostringstream text;
  text << in.rdbuf();
  EXPECT_NE(text.str().find("_S5"), std::string::npos);
  EXPECT_NE(text.str().find("PNP0501"), std::string::npos);
  EXPECT_NE(text.str().find("0x03F8"), std::string::npos);
  EXPECT_NE(text.str().find("PNP0A03"), std::string::npos);
  EXPECT_NE(text.str().find("0x001FFFFF"), std::string::npos) << "routes up to the last device";
  EXPECT_NE(text.str().find("C0FD"), std::string::npos) << "the last of 254 processors";
  EXPECT_EQ(system(("rm -r '" + folder + "'").c_str()), 0);
}

}  // namespace
}  // namespace lodge::machine::acpi
