#include "machine/multiboot.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "base/append_little.hpp"

namespace lodge::machine {
namespace {

constexpr uint32_t kMagic = 0x1badb002, kAddresses = 1 << 16, kLoad = 0x100000;

struct Addresses {
  uint32_t header = kLoad + 16, load = kLoad, load_end = 0, bss_end = 0, entry = kLoad + 64;
};

// 16 bytes of something, the header, and 0x5a up to the end.
std::vector<uint8_t> make(uint32_t flags, const Addresses& at = {}, size_t bytes = 256, size_t before = 16) {
  std::vector<uint8_t> file(before, 0x11);
  for (const uint32_t word : {kMagic, flags, 0 - kMagic - flags, at.header, at.load, at.load_end, at.bss_end, at.entry})
    append_little(file, word, 4);
  file.resize(bytes, 0x5a);
  return file;
}

std::string refusal(const std::vector<uint8_t>& file) {
  const auto image = parse_multiboot(file);
  return image ? "accepted" : image.error().message;
}

TEST(Multiboot, TheHeaderIsInTheFirst8KiBAtAMultipleOf4) {
  EXPECT_TRUE(looks_like_multiboot(make(kAddresses)));
  EXPECT_TRUE(looks_like_multiboot(make(0, {}, 9000, 8180)));
  EXPECT_FALSE(looks_like_multiboot(make(0, {}, 9000, 8184)));
  EXPECT_FALSE(looks_like_multiboot(make(0, {}, 256, 18)));
  EXPECT_FALSE(looks_like_multiboot({}));
  auto wrong_sum = make(0);
  wrong_sum[24] ^= 1;
  EXPECT_FALSE(looks_like_multiboot(wrong_sum));
}

TEST(Multiboot, AddressesSayWhatIsLoaded) {
  const auto file = make(kAddresses | 3);
  const auto image = parse_multiboot(file);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->entry, kLoad + 64);
  ASSERT_EQ(image->segments.size(), 1u);
  EXPECT_EQ(image->segments[0].address, kLoad);
  EXPECT_EQ(image->segments[0].bytes.size(), file.size());
  EXPECT_EQ(image->segments[0].memory_size, file.size());
  EXPECT_EQ(image->end(), kLoad + file.size());
}

TEST(Multiboot, APartOfTheFileWithZerosBehindIt) {
  const auto file = make(kAddresses, {.header = kLoad + 4, .load_end = kLoad + 100, .bss_end = kLoad + 5000});
  const auto image = parse_multiboot(file);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->segments[0].bytes.data(), file.data() + 12);
  EXPECT_EQ(image->segments[0].bytes.size(), 100u);
  EXPECT_EQ(image->segments[0].memory_size, 5000u);
}

TEST(Multiboot, RefusesAddressesThatCannotBe) {
  EXPECT_NE(refusal(make(kAddresses, {.header = kLoad - 1})).find("impossible"), std::string::npos);
  EXPECT_NE(refusal(make(kAddresses, {.header = kLoad + 20})).find("impossible"), std::string::npos) << "before the file's beginning";
  EXPECT_NE(refusal(make(kAddresses, {.load_end = kLoad - 1})).find("impossible"), std::string::npos);
  EXPECT_NE(refusal(make(kAddresses, {.load_end = kLoad + 257})).find("cut short"), std::string::npos);
  EXPECT_NE(refusal(make(kAddresses, {.header = 0x7c10, .load = 0x7c00})).find("below 1 MiB"), std::string::npos);
}

TEST(Multiboot, RefusesWhatItCannotGive) {
  EXPECT_NE(refusal(make(kAddresses | 4)).find("graphics mode"), std::string::npos);
  EXPECT_NE(refusal(make(kAddresses | 0x100)).find("something unknown"), std::string::npos);
  EXPECT_NE(refusal(make(0)).find("ELF"), std::string::npos) << "without addresses it is an ELF file";
  EXPECT_NE(refusal(std::vector<uint8_t>(256)).find("no multiboot header"), std::string::npos);
}

}  // namespace
}  // namespace lodge::machine
