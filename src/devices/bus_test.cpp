#include "devices/bus.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

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

TEST(Bus, DetachedRangesAreGoneAndMayComeBackElsewhere) {
  PortBus bus;
  Registers a, b;
  ASSERT_TRUE(bus.attach(0x1000, 0x10, a, "a"));
  ASSERT_TRUE(bus.attach(0x2000, 0x10, b, "b"));
  bus.detach(0x1000);
  EXPECT_EQ(bus.read(0x1000, 4), 0xffffffffu);
  bus.detach(0x2001);
  EXPECT_EQ(bus.read(0x2000, 4), 0x44332211u) << "only a range's own base names it";
  ASSERT_TRUE(bus.attach(0x1ff0, 0x10, a, "a again"));
  EXPECT_EQ(bus.read(0x1ff4, 4), 0x44332211u);
  EXPECT_EQ(a.log, std::vector<std::string>{"r4/4"});
}

TEST(Bus, TakesMoreRangesThanTheFirstTableHolds) {
  MmioBus bus;
  struct Number final : MmioDevice {
    uint64_t value = 0;
    uint64_t read(uint64_t, unsigned) override { return value; }
    void write(uint64_t, unsigned, uint64_t) override {}
  };
  std::vector<Number> devices(200);
  for (uint64_t i = 0; i < devices.size(); ++i) {
    devices[i].value = i;
    ASSERT_TRUE(bus.attach(0x10000 * i, 0x1000, devices[i], "number"));
  }
  for (uint64_t i = 0; i < devices.size(); ++i) EXPECT_EQ(bus.read(0x10000 * i + 0xff8, 8), i);
}

TEST(Bus, RangeAtTheEndOfTheAddressSpace) {
  MmioBus bus;
  struct Zero final : MmioDevice {
    uint64_t read(uint64_t, unsigned) override { return 0; }
    void write(uint64_t, unsigned, uint64_t) override {}
  } zero;
  ASSERT_TRUE(bus.attach(~uint64_t{0xfff}, 0x1000, zero, "last page"));
  EXPECT_EQ(bus.read(~uint64_t{7}, 8), 0u);
  EXPECT_FALSE(bus.attach(~uint64_t{0xfff}, 0x2000, zero, "around the end"));
}

// A reader sees each range at one place or the other or not at all, but never a device at another's offsets.
TEST(Bus, ReadersSeeWholeChanges) {
  MmioBus bus;
  struct Echo final : MmioDevice {
    explicit Echo(uint64_t tag) : tag_(tag) {}
    uint64_t read(uint64_t offset, unsigned) override { return tag_ | offset; }
    void write(uint64_t, unsigned, uint64_t) override {}
    uint64_t tag_;
  } a(0xa000000), b(0xb000000);
  ASSERT_TRUE(bus.attach(0x8000, 0x1000, b, "b"));
  std::atomic<bool> done = false;
  std::atomic<uint64_t> wrong = 0;
  std::thread reader([&] {
    for (int i = 0; i < 50000; ++i) {
      for (uint64_t base : {0x4000, 0xc000}) {
        const uint64_t value = bus.read(base + 0x123, 8);
        if (value != 0xa000123 && value != ~uint64_t{0}) ++wrong;
      }
      if (bus.read(0x8456, 8) != 0xb000456) ++wrong;
    }
    done = true;
  });
  for (int i = 0; !done; ++i) {
    const uint64_t base = i % 2 ? 0x4000 : 0xc000;
    ASSERT_TRUE(bus.attach(base, 0x1000, a, "a"));
    bus.detach(base);
  }
  reader.join();
  EXPECT_EQ(wrong, 0u);
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
  std::vector<bool> changes;
  A20Gate gate([&](bool open) { changes.push_back(open); });
  SystemControlA port([&] { ++resets; }, gate);
  EXPECT_EQ(port.read(0, 1), 2u);
  port.write(0, 1, 0x00);
  EXPECT_EQ(port.read(0, 1), 0u);
  port.write(0, 1, 0x03);
  EXPECT_EQ(resets, 1);
  EXPECT_EQ(port.read(0, 1), 3u);
  port.write(0, 1, 0x03);
  EXPECT_EQ(resets, 1) << "no edge";
  port.write(0, 1, 0x02);
  port.write(0, 1, 0x03);
  EXPECT_EQ(resets, 2);
  EXPECT_EQ(changes, (std::vector<bool>{false, true}));
  gate.set(false);  // by the other chip
  EXPECT_EQ(port.read(0, 1) & 2, 0u);
}

TEST(ChipsetPorts, PowerManagementHoldsTwoBytes) {
  ApmPorts ports;
  EXPECT_EQ(ports.read(0, 2), 0u);
  ports.write(0, 1, 0xa5);
  ports.write(1, 1, 0x5a);
  EXPECT_EQ(ports.read(0, 2), 0x5aa5u);
}

TEST(ChipsetPorts, PanicsAreToldOf) {
  int panics = 0;
  PanicEvent event([&] { ++panics; });
  EXPECT_EQ(event.read(0, 1), 1u);
  event.write(0, 1, 2);
  EXPECT_EQ(panics, 0) << "another event";
  event.write(0, 1, 1);
  EXPECT_EQ(panics, 1);
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
