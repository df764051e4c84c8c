#include "devices/pci/msix.hpp"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace lodge::devices::pci {
namespace {

using Messages = std::vector<std::pair<uint64_t, uint32_t>>;

constexpr unsigned kCap = 0x40, kControl = kCap + 2, kBar = 2;
constexpr uint32_t kTable = 0x1000, kPending = 0x2000;
constexpr uint16_t kEnable = 0x8000, kFunctionMask = 0x4000;

class MsixTest : public testing::Test {
 protected:
  void SetUp() override { msix.set_bus_master(true); }
  void control(uint16_t value) {
    config.write(kControl, 2, value);
    msix.config_written();
  }
  void program(unsigned vector, uint64_t address, uint32_t data, bool masked) {
    msix.write(kTable + 16 * vector, 4, static_cast<uint32_t>(address));
    msix.write(kTable + 16 * vector + 4, 4, address >> 32);
    msix.write(kTable + 16 * vector + 8, 4, data);
    msix.write(kTable + 16 * vector + 12, 4, masked ? 1 : 0);
  }
  ConfigSpace config;
  Messages sent;
  Msix msix{config,
            {.vectors = 70, .bar = kBar, .table_offset = kTable, .pending_offset = kPending},
            [this](uint64_t address, uint32_t data) { sent.emplace_back(address, data); }};
};

// PCI 3.0, 6.8.2.3 to 6.8.2.5.
TEST_F(MsixTest, CapabilityTellsSizeAndPlaces) {
  EXPECT_EQ(config.read(kCap, 1), 0x11u);
  EXPECT_EQ(config.read(kControl, 2), 69u) << "the size is one less";
  EXPECT_EQ(config.read(kCap + 4, 4), kTable | kBar);
  EXPECT_EQ(config.read(kCap + 8, 4), kPending | kBar);
  control(0xffff);
  EXPECT_EQ(config.read(kControl, 2), 0xc000u | 69u);
}

TEST_F(MsixTest, CoversTableAndPendingBitsOnly) {
  EXPECT_TRUE(msix.covers(kBar, kTable));
  EXPECT_TRUE(msix.covers(kBar, kTable + 70 * 16 - 1));
  EXPECT_FALSE(msix.covers(kBar, kTable + 70 * 16));
  EXPECT_FALSE(msix.covers(kBar, kTable - 1));
  EXPECT_TRUE(msix.covers(kBar, kPending + 15)) << "70 bits take two qwords";
  EXPECT_FALSE(msix.covers(kBar, kPending + 16));
  EXPECT_FALSE(msix.covers(kBar + 1, kTable));
}

TEST_F(MsixTest, EntriesAreMaskedAfterReset) {
  for (unsigned vector : {0u, 1u, 69u}) EXPECT_EQ(msix.read(kTable + 16 * vector + 12, 4), 1u);
}

TEST_F(MsixTest, TableReadsBackInAnyWidth) {
  program(3, 0x1fee00007, 0xa5a51234, false);
  EXPECT_EQ(msix.read(kTable + 48, 8), 0x1fee00004u) << "the lowest two bits of an address are zero";
  EXPECT_EQ(msix.read(kTable + 56, 4), 0xa5a51234u);
  EXPECT_EQ(msix.read(kTable + 58, 2), 0xa5a5u);
  EXPECT_EQ(msix.read(kTable + 60, 4), 0u);
  msix.write(kTable + 48, 8, 0xfee02000);
  EXPECT_EQ(msix.read(kTable + 48, 8), 0xfee02000u) << "a qword at once";
  msix.write(kTable + 56, 8, 0x100000042);
  EXPECT_EQ(msix.read(kTable + 56, 4), 0x42u);
  EXPECT_EQ(msix.read(kTable + 60, 4), 1u) << "data and vector control";
}

TEST_F(MsixTest, WritesOfOtherWidthsDoNothing) {
  program(0, 0xfee00000, 0x31, false);
  msix.write(kTable, 1, 0xff);
  msix.write(kTable + 8, 2, 0xffff);
  msix.write(kTable + 2, 4, 0xffffffff);
  msix.write(kTable + 4, 8, ~uint64_t{0});
  EXPECT_EQ(msix.read(kTable, 8), 0xfee00000u);
  EXPECT_EQ(msix.read(kTable + 8, 4), 0x31u);
}

TEST_F(MsixTest, SignalSendsTheEntrysMessage) {
  program(1, 0xfee05000, 0x77, false);
  msix.signal(1);
  EXPECT_TRUE(sent.empty()) << "MSI-X is off";
  control(kEnable);
  EXPECT_TRUE(sent.empty()) << "what came while it was off is not kept";
  msix.signal(1);
  msix.signal(70);
  EXPECT_EQ(sent, (Messages{{0xfee05000, 0x77}}));
}

// 6.8.3.5: a masked vector's interrupt is remembered, once, and sent when the mask goes.
TEST_F(MsixTest, MaskedVectorIsPendingUntilUnmasked) {
  control(kEnable);
  program(65, 0xfee00000, 0x41, true);
  msix.signal(65);
  msix.signal(65);
  EXPECT_TRUE(sent.empty());
  EXPECT_EQ(msix.read(kPending + 8, 8), 2u);
  msix.write(kPending + 8, 8, 0);
  EXPECT_EQ(msix.read(kPending + 8, 4), 2u) << "pending bits are read-only";
  msix.write(kTable + 65 * 16 + 12, 4, 0);
  EXPECT_EQ(sent, (Messages{{0xfee00000, 0x41}}));
  EXPECT_EQ(msix.read(kPending + 8, 8), 0u);
}

TEST_F(MsixTest, FunctionMaskHoldsAllVectors) {
  program(0, 0xfee00000, 0x30, false);
  program(2, 0xfee00000, 0x32, false);
  program(3, 0xfee00000, 0x33, true);
  control(kEnable | kFunctionMask);
  for (unsigned vector : {2u, 0u, 3u}) msix.signal(vector);
  EXPECT_TRUE(sent.empty());
  EXPECT_EQ(msix.read(kPending, 8), 0xdu);
  control(kEnable);
  EXPECT_EQ(sent, (Messages{{0xfee00000, 0x30}, {0xfee00000, 0x32}}));
  EXPECT_EQ(msix.read(kPending, 8), 0x8u) << "one is masked by itself, too";
}

// 6.8.2.9: software may change the message while the vector is masked.
TEST_F(MsixTest, PendingVectorGoesToTheNewAddress) {
  control(kEnable);
  program(0, 0xfee00000, 0x30, true);
  msix.signal(0);
  program(0, 0xfee01000, 0x50, true);
  EXPECT_TRUE(sent.empty());
  msix.write(kTable + 12, 4, 0);
  EXPECT_EQ(sent, (Messages{{0xfee01000, 0x50}}));
}

TEST_F(MsixTest, MessagesWaitForBusMastering) {
  program(0, 0xfee00000, 0x30, false);
  control(kEnable);
  msix.set_bus_master(false);
  msix.signal(0);
  EXPECT_TRUE(sent.empty());
  msix.set_bus_master(true);
  EXPECT_EQ(sent.size(), 1u);
}

}  // namespace
}  // namespace lodge::devices::pci
