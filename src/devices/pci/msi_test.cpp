#include "devices/pci/msi.hpp"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace lodge::devices::pci {
namespace {

using Messages = std::vector<std::pair<uint64_t, uint32_t>>;

// Offsets as PCI 3.0, figure 6-9 has them, restated.
constexpr unsigned kCap = 0x40, kControl = kCap + 2, kAddress = kCap + 4, kUpper = kCap + 8, kData = kCap + 12, kMask = kCap + 16,
                   kPending = kCap + 20;

class MsiTest : public testing::Test {
 protected:
  void write(unsigned offset, unsigned size, uint32_t value) {
    config.write(offset, size, value);
    msi.config_written();
  }
  uint32_t pending() {
    msi.config_reading();
    return config.read(kPending, 4);
  }
  void program(unsigned log2_vectors) {
    write(kAddress, 4, 0xfee01000);
    write(kUpper, 4, 0);
    write(kData, 2, 0x4130);
    write(kControl, 2, log2_vectors << 4 | 1);
  }
  ConfigSpace config;
  Messages sent;
  Msi msi{config, 8, [this](uint64_t address, uint32_t data) { sent.emplace_back(address, data); }};
  void SetUp() override { msi.set_bus_master(true); }
};

TEST_F(MsiTest, CapabilitySaysWhatItCan) {
  EXPECT_EQ(config.read(0x34, 1), kCap);
  EXPECT_EQ(config.read(0x06, 2) & 0x10, 0x10u) << "the status register announces a list";
  EXPECT_EQ(config.read(kCap, 1), 5u);
  EXPECT_EQ(config.read(kCap + 1, 1), 0u) << "the end of the list";
  EXPECT_EQ(config.read(kControl, 2), 3u << 1 | 1u << 7 | 1u << 8) << "eight vectors, 64 bits, masks";
  write(kControl, 2, 0xffff);
  EXPECT_EQ(config.read(kControl, 2), 3u << 1 | 1u << 7 | 1u << 8 | 7u << 4 | 1u) << "only enable and the number granted are software's";
  write(kAddress, 4, 0xffffffff);
  EXPECT_EQ(config.read(kAddress, 4), 0xfffffffcu);
  write(kMask, 4, 0xffffffff);
  EXPECT_EQ(config.read(kMask, 4), 0xffu) << "bits of vectors that are not there";
  write(kPending, 4, 0xff);
  EXPECT_EQ(pending(), 0u) << "read-only";
}

TEST_F(MsiTest, NothingIsSentWhileDisabled) {
  msi.signal(0);
  EXPECT_TRUE(sent.empty());
  program(0);
  EXPECT_TRUE(sent.empty()) << "and nothing is kept from then";
}

TEST_F(MsiTest, VectorsStandInTheLowBitsOfTheData) {
  program(3);
  msi.signal(0);
  msi.signal(5);
  EXPECT_EQ(sent, (Messages{{0xfee01000, 0x4130}, {0xfee01000, 0x4135}}));
}

TEST_F(MsiTest, FewerGrantedThanWantedAreShared) {
  program(1);
  msi.signal(5);
  EXPECT_EQ(sent, (Messages{{0xfee01000, 0x4131}}));
  sent.clear();
  program(5);  // more than the function can: as many as it can
  msi.signal(7);
  EXPECT_EQ(sent, (Messages{{0xfee01000, 0x4137}}));
}

TEST_F(MsiTest, MaskedVectorsArePendingUntilUnmasked) {
  program(3);
  write(kMask, 4, 0x0c);
  msi.signal(2);
  msi.signal(3);
  msi.signal(3);
  msi.signal(4);
  EXPECT_EQ(sent, (Messages{{0xfee01000, 0x4134}}));
  EXPECT_EQ(pending(), 0x0cu);
  sent.clear();
  write(kMask, 4, 0x04);
  EXPECT_EQ(sent, (Messages{{0xfee01000, 0x4133}})) << "once, however often it was signalled";
  EXPECT_EQ(pending(), 0x04u);
}

TEST_F(MsiTest, MessagesNeedBusMastering) {
  program(3);
  msi.set_bus_master(false);
  msi.signal(1);
  EXPECT_TRUE(sent.empty());
  msi.set_bus_master(true);
  EXPECT_EQ(sent, (Messages{{0xfee01000, 0x4131}}));
}

TEST_F(MsiTest, UpperAddressCounts) {
  program(0);
  write(kUpper, 4, 0x12);
  msi.signal(0);
  EXPECT_EQ(sent, (Messages{{0x12fee01000, 0x4130}}));
}

}  // namespace
}  // namespace lodge::devices::pci
