#include "machine/cd_image.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>
#include <vector>

namespace lodge::machine {
namespace {

using namespace std::string_view_literals;

class CdImage : public testing::Test {
 protected:
  void put(size_t at, std::string_view text) { std::memcpy(image.data() + at, text.data(), text.size()); }
  [[nodiscard]] std::string why() const { return no_cd_image(image).value_or("it is one"); }

  std::vector<uint8_t> image = std::vector<uint8_t>(kCdImageBegin);
};

TEST_F(CdImage, IsKnownByItsFirstDescriptor) {
  EXPECT_NE(why(), "it is one");
  for (const auto& [at, identifier] : {std::pair{1, "CD001"}, {1, "BEA01"}, {1, "NSR02"}, {1, "NSR03"}, {9, "CDROM"}}) {
    image.assign(kCdImageBegin, 0);
    put(16 * 2048 + at, identifier);
    EXPECT_EQ(why(), "it is one") << identifier;
  }
  // A hybrid image is a disk's as well.
  put(510, "\x55\xaa");
  EXPECT_EQ(why(), "it is one");
}

TEST_F(CdImage, OtherFilesAreCalledWhatTheyAre) {
  EXPECT_NE(why().find("neither ISO 9660 nor UDF"), std::string::npos);
  for (const std::string_view packed : {"\x1f\x8b\x08"sv, "\xfd\x37zXZ\0"sv, "BZh9"sv, "\x28\xb5\x2f\xfd"sv, "\x02\x21\x4c\x18"sv,
                                        "PK\3\4"sv, "7z\xbc\xaf\x27\x1c"sv, "Rar!"sv}) {
    image.assign(kCdImageBegin, 0);
    put(0, packed);
    EXPECT_NE(why().find("unpack it"), std::string::npos) << packed;
  }
  put(0, "<!DOCTYPE HTML>");
  EXPECT_NE(why().find("web page"), std::string::npos);
  image.resize(100);  // what stands there comes first
  EXPECT_NE(why().find("web page"), std::string::npos);
  image.assign(kCdImageBegin, 0);
  put(0, "\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"sv);
  EXPECT_NE(why().find("2352 bytes"), std::string::npos);
  image.assign(kCdImageBegin, 0);
  put(510, "\x55\xaa");
  EXPECT_NE(why().find("give it as DISK"), std::string::npos);
}

TEST_F(CdImage, ShortFiles) {
  put(16 * 2048 + 1, "CD001");
  for (const size_t size : {0u, 1u, 511u, 2048u, 16u * 2048 + 3}) {
    image.resize(size);
    EXPECT_NE(why().find(std::to_string(size) + " bytes"), std::string::npos);
    EXPECT_EQ(cd_volume_bytes(image), 0u);
  }
}

TEST_F(CdImage, VolumesHaveASize) {
  put(16 * 2048, "\1CD001\1");
  put(16 * 2048 + 80, "\x40\x42\x0f\x00\x00\x0f\x42\x40"sv);
  put(16 * 2048 + 128, "\x00\x08\x08\x00"sv);
  EXPECT_EQ(cd_volume_bytes(image), uint64_t{1000000} * 2048);
  put(16 * 2048, "\2");  // a supplementary descriptor has no say
  EXPECT_EQ(cd_volume_bytes(image), 0u);
}

}  // namespace
}  // namespace lodge::machine
