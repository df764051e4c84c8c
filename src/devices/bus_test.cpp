#include "devices/bus.hpp"

#include <gtest/gtest.h>

#include "devices/chipset_ports.hpp"

namespace lodge::devices {
namespace {

struct Registers final : PortDevice {
  uint32_t read(uint64_t offset, unsigned size) override {
    log.push_back(fmt::format("r{}/{}", offset, size));
    return 0x44332211;
  }
  void write(uint64_t offset, unsigned size, uint32_t value) override { log.push_back(fmt::format("w{}/{}={:x}", offset, size, value)); }
  std::vector<std::string> log;
};

TEST(Bus, UnknownPortsReadAllOnesAndIgnoreWrites) {
  PortBus bus;
  EXPECT_EQ(bus.read(0x300, 1), 0xffu);
  EXPECT_EQ(bus.read(0x300, 2), 0xffffu);
  EXPECT_EQ(bus.read(0x300, 4), 0xffffffffu);
  bus.write(0x300, 1, 5);
  MmioBus memory;
  EXPECT_EQ(memory.read(0xd0000000, 8), ~uint64_t{0});
}

TEST(Bus, FindsTheDeviceOfEachRangeAndNothingBeside) {
  PortBus bus;
  Registers a, b;
  ASSERT_TRUE(bus.attach(0x60, 1, a, "a"));
  ASSERT_TRUE(bus.attach(0x64, 4, b, "b"));
  EXPECT_EQ(bus.read(0x60, 1), 0x11u);
  bus.write(0x66, 2, 0x12345);
  EXPECT_EQ(bus.read(0x5f, 1), 0xffu);
  EXPECT_EQ(bus.read(0x61, 1), 0xffu);
  EXPECT_EQ(bus.read(0x68, 1), 0xffu);
  EXPECT_EQ(a.log, std::vector<std::string>{"r0/1"});
  EXPECT_EQ(b.log, std::vector<std::string>{"w2/2=2345"});
}

TEST(Bus, AccessThatRunsPastARangeIsSplitIntoBytes) {
  PortBus bus;
  Registers a;
  ASSERT_TRUE(bus.attach(0x60, 1, a, "a"));
  EXPECT_EQ(bus.read(0x60, 2), 0xff11u);
  bus.write(0x60, 4, 0xaabbccdd);
  EXPECT_EQ(a.log, (std::vector<std::string>{"r0/1", "w0/1=dd"}));
}

TEST(Bus, AccessThatStartsOutsideDoesNotReachIn) {
  // A dword at 0xcf8 is PCI configuration and must not reset the machine through 0xcf9.
  PortBus bus;
  int resets = 0;
  ResetControl reset([&] { ++resets; });
  ASSERT_TRUE(bus.attach(0xcf9, 1, reset, "reset"));
  bus.write(0xcf8, 4, 0xffffffff);
  EXPECT_EQ(resets, 0);
  bus.write(0xcf9, 1, 0x06);
  EXPECT_EQ(resets, 1);
}

TEST(Bus, RefusesOverlapAndEmptyRanges) {
  PortBus bus;
  Registers a;
  ASSERT_TRUE(bus.attach(0x60, 8, a, "first"));
  EXPECT_FALSE(bus.attach(0x67, 1, a, "tail"));
  EXPECT_FALSE(bus.attach(0x5f, 2, a, "head"));
  EXPECT_FALSE(bus.attach(0x00, 0x100, a, "around"));
  EXPECT_FALSE(bus.attach(0x90, 0, a, "empty"));
  EXPECT_TRUE(bus.attach(0x68, 1, a, "next"));
}

TEST(ChipsetPorts, ResetNeedsARisingEdgeOfResetCpu) {
  int resets = 0;
  ResetControl control([&] { ++resets; });
  control.write(0, 1, 0x02);
  EXPECT_EQ(resets, 0);
  control.write(0, 1, 0x06);
  EXPECT_EQ(resets, 1);
}

TEST(ChipsetPorts, SystemControlAResetsAndReadsA20) {
  int resets = 0;
  SystemControlA port([&] { ++resets; });
  EXPECT_EQ(port.read(0, 1) & 2, 2u);
  port.write(0, 1, 0x00);
  EXPECT_EQ(port.read(0, 1) & 2, 0u);
  port.write(0, 1, 0x03);
  EXPECT_EQ(resets, 1);
}

TEST(ChipsetPorts, DebugConsoleGivesItsSignatureAndTakesBytes) {
  std::string text;
  DebugConsole console(0xe9, [&](uint8_t byte) { text += static_cast<char>(byte); });
  EXPECT_EQ(console.read(0, 1), 0xe9u);
  console.write(0, 1, 'h');
  console.write(0, 2, 'i' | '!' << 8);
  EXPECT_EQ(text, "hi!");
}

}  // namespace
}  // namespace lodge::devices
