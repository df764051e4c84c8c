#include "devices/pci/option_rom.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace lodge::devices::pci {
namespace {

constexpr size_t kImage = 1024, kData = 0x40;

void add_image(std::vector<uint8_t>& rom, uint8_t code_type, bool last) {
  const size_t at = rom.size();
  rom.resize(at + kImage, 0x5a);
  uint8_t* const image = rom.data() + at;
  image[0] = 0x55, image[1] = 0xaa, image[2] = kImage / 512;
  image[0x18] = kData, image[0x19] = 0;
  const uint8_t data[]{'P', 'C', 'I', 'R', 0xf4, 0x1a,         0x00, 0x10, 0, 0,         0x18,
                       0,   0,   0,   0,   2,    kImage / 512, 0,    1,    0, code_type, static_cast<uint8_t>(last ? 0x80 : 0),
                       0,   0};
  std::copy(std::begin(data), std::end(data), image + kData);
}

uint8_t sum(std::span<const uint8_t> bytes) { return std::accumulate(bytes.begin(), bytes.end(), uint8_t{0}); }

TEST(OptionRom, EveryImageNamesTheFunction) {
  std::vector<uint8_t> rom;
  add_image(rom, 0, false);
  add_image(rom, 3, true);
  add_image(rom, 0, true);  // behind the last: none of the ROM's
  const std::vector<uint8_t> made = option_rom_for(rom, 0x1234, 0xabcd);
  ASSERT_EQ(made.size(), rom.size());
  const std::vector<uint8_t> numbers{0x34, 0x12, 0xcd, 0xab}, old{0xf4, 0x1a, 0x00, 0x10};
  for (const size_t image : {size_t{0}, kImage, 2 * kImage}) {
    const auto* const at = made.data() + image + kData + 4;
    EXPECT_EQ(std::vector<uint8_t>(at, at + 4), image == 2 * kImage ? old : numbers) << image;
  }
  EXPECT_EQ(sum(std::span(made).first(kImage)), sum(std::span(rom).first(kImage)));
  EXPECT_EQ(made[kImage + 6], 0x5a);  // only a BIOS looks at the sum
}

TEST(OptionRom, WhatIsNoImageStays) {
  std::vector<uint8_t> rom;
  add_image(rom, 0, true);
  std::vector<uint8_t> no_signature = rom, far_data = rom, too_long = rom, no_data = rom;
  no_signature[0] = 0;
  far_data[0x18] = far_data[0x19] = 0xff;
  too_long[kData + 0x10] = 3;
  no_data[kData] = 'Q';
  for (const auto& damaged : {no_signature, far_data, too_long, no_data, std::vector<uint8_t>{}, std::vector<uint8_t>{0x55, 0xaa}})
    EXPECT_EQ(option_rom_for(damaged, 1, 2), damaged);
}

}  // namespace
}  // namespace lodge::devices::pci
