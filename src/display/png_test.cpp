#include "display/png.hpp"

#include <gtest/gtest.h>
#include <png.h>

namespace lodge::display {
namespace {

TEST(Png, ComesBackAsItWas) {
  Picture picture;
  picture.resize(3, 2);
  picture.pixels = {0xff0000, 0x00ff00, 0x0000ff, 0x123456, 0, 0xffffff};
  const auto bytes = encode_png(picture);
  ASSERT_TRUE(bytes) << bytes.error().message;
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_TRUE(png_image_begin_read_from_memory(&image, bytes->data(), bytes->size()));
  ASSERT_EQ(image.width, 3U);
  ASSERT_EQ(image.height, 2U);
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> rgb(PNG_IMAGE_SIZE(image));
  ASSERT_TRUE(png_image_finish_read(&image, nullptr, rgb.data(), 0, nullptr));
  EXPECT_EQ(rgb, (std::vector<uint8_t>{0xff, 0, 0, 0, 0xff, 0, 0, 0, 0xff, 0x12, 0x34, 0x56, 0, 0, 0, 0xff, 0xff, 0xff}));
}

TEST(Png, NoPictureIsAnError) { EXPECT_FALSE(encode_png(Picture())); }

}  // namespace
}  // namespace lodge::display
