#include "devices/isa_dma/i8237.hpp"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "memory/test_memory.hpp"

namespace lodge::devices {
namespace {

using Direction = I8237::Direction;

struct Dma : testing::Test {
  Dma() {
    EXPECT_TRUE(chip.attach(ports));
    std::iota(data.begin(), data.end(), uint8_t{1});
    out(0xd6, 0xc0);  // the cascade
    out(0xd4, 0x00);
  }
  void out(uint16_t port, uint8_t value) { ports.write(port, 1, value); }
  uint8_t in(uint16_t port) { return static_cast<uint8_t>(ports.read(port, 1)); }
  void set_up(uint8_t mode, uint32_t address, uint16_t count) {
    out(0x0c, 0);
    out(0x0b, mode | 2);
    out(0x04, address & 0xff);
    out(0x04, address >> 8 & 0xff);
    out(0x81, static_cast<uint8_t>(address >> 16));
    out(0x05, count & 0xff);
    out(0x05, static_cast<uint8_t>(count >> 8));
    out(0x0a, 2);
  }
  memory::test::Memory memory;
  PortBus ports;
  I8237 chip{*memory.guest};
  std::array<uint8_t, 64> data{};
};

TEST_F(Dma, MovesToMemoryUntilTheCountEnds) {
  set_up(0x44, 0x12ff0, 63);
  auto moved = chip.move(2, Direction::ToMemory, std::span(data).first(40));
  EXPECT_EQ(moved.bytes, 40u);
  EXPECT_FALSE(moved.terminal_count);
  EXPECT_EQ(in(0x08), 0);
  moved = chip.move(2, Direction::ToMemory, data);
  EXPECT_EQ(moved.bytes, 24u);
  EXPECT_TRUE(moved.terminal_count);
  EXPECT_EQ(memory.get<uint8_t>(0x12ff0), 1);
  EXPECT_EQ(memory.get<uint8_t>(0x12ff0 + 40), 1);
  EXPECT_EQ(memory.get<uint8_t>(0x12ff0 + 64), 0);
  EXPECT_EQ(in(0x08), 4);
  EXPECT_EQ(in(0x08), 0) << "told once";
  EXPECT_EQ(chip.move(2, Direction::ToMemory, data).bytes, 0u) << "masked by its end";
  EXPECT_EQ(in(0x0f) & 4, 4);
}

TEST_F(Dma, CountersCanBeReadWhileItGoesOn) {
  set_up(0x44, 0x2000, 99);
  static_cast<void>(chip.move(2, Direction::ToMemory, data));
  out(0x0c, 0);
  EXPECT_EQ(in(0x04), 0x40);
  EXPECT_EQ(in(0x04), 0x20);
  EXPECT_EQ(in(0x05), 35);
  EXPECT_EQ(in(0x05), 0);
  EXPECT_EQ(in(0x81), 0);
}

TEST_F(Dma, MovesFromMemory) {
  memory.put<uint32_t>(0x3000, 0x44332211);
  set_up(0x48, 0x3000, 3);
  EXPECT_EQ(chip.move(2, Direction::ToMemory, data).bytes, 0u) << "the other way";
  const auto moved = chip.move(2, Direction::FromMemory, data);
  EXPECT_EQ(moved.bytes, 4u);
  EXPECT_EQ(data[3], 0x44);
  EXPECT_EQ(data[4], 5);
}

TEST_F(Dma, StaysWithinItsPage) {
  set_up(0x44, 0x1fffe, 3);
  static_cast<void>(chip.move(2, Direction::ToMemory, data));
  EXPECT_EQ(memory.get<uint8_t>(0x1ffff), 2);
  EXPECT_EQ(memory.get<uint8_t>(0x10000), 3);
  EXPECT_EQ(memory.get<uint8_t>(0x20000), 0);
}

TEST_F(Dma, GoesDownAndBeginsAnew) {
  set_up(0x44 | 0x20 | 0x10, 0x4003, 3);
  const auto moved = chip.move(2, Direction::ToMemory, std::span(data).first(4));
  EXPECT_TRUE(moved.terminal_count);
  EXPECT_EQ(memory.get<uint32_t>(0x4000), 0x01020304u);
  EXPECT_EQ(chip.move(2, Direction::ToMemory, std::span(data).first(2)).bytes, 2u);
  EXPECT_EQ(memory.get<uint8_t>(0x4003), 1);
}

TEST_F(Dma, MovesWordsOnTheUpperChannels) {
  out(0xd8, 0);
  out(0xd6, 0x45);
  out(0xc4, 0x00);
  out(0xc4, 0x80);
  out(0x8b, 0x03);  // bit 0 does not count: 0x20000 + 0x8000 words
  out(0xc6, 1);
  out(0xc6, 0);
  out(0xd4, 1);
  const auto moved = chip.move(5, Direction::ToMemory, data);
  EXPECT_EQ(moved.bytes, 4u);
  EXPECT_TRUE(moved.terminal_count);
  EXPECT_EQ(memory.get<uint32_t>(0x30000), 0x04030201u);
}

TEST_F(Dma, NothingMovesWhileItIsOff) {
  set_up(0x44, 0x2000, 3);
  out(0x08, 0x04);
  EXPECT_EQ(chip.move(2, Direction::ToMemory, data).bytes, 0u);
  out(0x08, 0);
  out(0xd4, 0x04);
  EXPECT_EQ(chip.move(2, Direction::ToMemory, data).bytes, 0u) << "the cascade";
  out(0xd4, 0);
  out(0x0d, 0);
  EXPECT_EQ(chip.move(2, Direction::ToMemory, data).bytes, 0u) << "master clear masks all";
  out(0x0e, 0);
  EXPECT_EQ(chip.move(2, Direction::ToMemory, data).bytes, 4u);
}

TEST_F(Dma, MemoryThatIsNoneReadsAsOnes) {
  set_up(0x48, 0xff0000, 3);
  memory.put<uint8_t>(0, 0);
  const memory::test::Memory small(1 << 16);
  I8237 other(*small.guest);
  PortBus bus;
  ASSERT_TRUE(other.attach(bus));
  bus.write(0xd4, 1, 0);
  bus.write(0x0b, 1, 0x4a);
  bus.write(0x81, 1, 0xff);
  bus.write(0x05, 1, 3);
  bus.write(0x05, 1, 0);
  bus.write(0x0a, 1, 2);
  EXPECT_EQ(other.move(2, Direction::FromMemory, data).bytes, 4u);
  EXPECT_EQ(data[0], 0xff);
}

TEST_F(Dma, SparePagesHoldWhatIsWritten) {
  out(0x84, 0x5a);
  EXPECT_EQ(in(0x84), 0x5a);
  EXPECT_EQ(in(0x85), 0);
}

}  // namespace
}  // namespace lodge::devices
