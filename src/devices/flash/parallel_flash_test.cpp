#include "devices/flash/parallel_flash.hpp"

#include <gtest/gtest.h>

#include <string>

namespace lodge::devices::flash {
namespace {

class Flash : public testing::Test {
 protected:
  void say(uint64_t offset, uint8_t value) { chip.write(offset, 1, value); }
  uint8_t at(uint64_t offset) { return static_cast<uint8_t>(chip.read(offset, 1)); }

  std::vector<uint8_t> array = std::vector<uint8_t>(16 * ParallelFlash::kBlockBytes, 0xff);
  std::string told;
  ParallelFlash chip{array,
                     {.show_array = [this](bool shown) { told += shown ? "array " : "chip "; },
                      .changed = [this](uint64_t offset, uint64_t length) { told += fmt::format("{}+{} ", offset, length); }}};
};

TEST_F(Flash, IsReadLikeARom) {
  array[5] = 0x42;
  EXPECT_EQ(at(5), 0x42);
  EXPECT_EQ(chip.read(4, 4), 0xffff42ffU);
  EXPECT_EQ(told, "");
}

TEST_F(Flash, ProgramsBytes) {
  say(100, 0x10);
  say(100, 0x5a);
  EXPECT_EQ(at(100), 0x80) << "the status: ready";
  say(101, 0x40);
  say(101, 0x0f);
  say(0, 0xff);
  EXPECT_EQ(at(100), 0x5a);
  EXPECT_EQ(at(101), 0x0f);
  EXPECT_EQ(told, "chip 100+2 array ");
  say(100, 0x10);
  say(100, 0xa5);
  say(0, 0xff);
  EXPECT_EQ(at(100), 0x00) << "ones do not come back but by erasing";
}

TEST_F(Flash, ErasesBlocks) {
  array[4095] = array[4096] = array[8191] = array[8192] = 0;
  say(5000, 0x20);
  say(5000, 0xd0);
  say(0, 0xff);
  EXPECT_EQ(at(4095), 0);
  EXPECT_EQ(at(4096), 0xff);
  EXPECT_EQ(at(8191), 0xff);
  EXPECT_EQ(at(8192), 0);
  EXPECT_EQ(told, "chip 4096+4096 array ");
}

TEST_F(Flash, EraseMustBeConfirmed) {
  array[0] = 0;
  say(0, 0x20);
  say(0, 0x55);
  EXPECT_EQ(at(0), 0xb0) << "ready, and the sequence was wrong";
  say(0, 0x50);
  EXPECT_EQ(at(0), 0) << "the array is as it was";
}

TEST_F(Flash, WritesThroughItsBuffer) {
  say(512, 0xe8);
  EXPECT_EQ(at(512), 0x80);
  say(512, 2);  // three bytes
  say(512, 1);
  say(513, 2);
  say(514, 3);
  say(512, 0xd0);
  say(0, 0xff);
  EXPECT_EQ(chip.read(512, 4), 0xff030201U);
}

TEST_F(Flash, TellsItselfFromRomAndRam) {
  // As OVMF looks: a place that holds none of the values that matter.
  array[0] = 0x11;
  say(0, 0x50);
  EXPECT_EQ(at(0), 0x11) << "RAM would hold 0x50";
  say(0, 0x70);
  EXPECT_EQ(at(0), 0x00) << "a ROM would still hold 0x11";
  say(0, 0xff);
  EXPECT_EQ(at(0), 0x11);
}

TEST_F(Flash, DescribesItself) {
  say(0, 0x98);
  EXPECT_EQ(at(0x10), 'Q');
  EXPECT_EQ(at(0x12), 'Y');
  EXPECT_EQ(at(0x13), 1) << "Intel's command set";
  EXPECT_EQ(at(0x27), 16) << "64 KiB";
  EXPECT_EQ(at(0x2d) | at(0x2e) << 8, 15) << "16 blocks";
  EXPECT_EQ((at(0x2f) | at(0x30) << 8) * 256, 4096);
  say(0, 0x90);
  EXPECT_EQ(at(0), 0x89);
}

TEST_F(Flash, TakesAnySequence) {
  uint32_t random = 1;
  const auto next = [&] { return random = random * 1664525 + 1013904223; };
  for (int i = 0; i < 200000; ++i) {
    const uint64_t offset = next() % (array.size() - 8);
    chip.write(offset, 1 << (next() >> 30), next());
    static_cast<void>(chip.read(offset, 1));
  }
  say(0, 0xff);
}

}  // namespace
}  // namespace lodge::devices::flash
