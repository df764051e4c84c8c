#include "display/png.hpp"

#include <png.h>

namespace lodge::display {

Result<std::vector<uint8_t>> encode_png(const Picture& picture) {
  if (picture.width == 0 || picture.height == 0) return fail(ErrorKind::Internal, "an empty picture");
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = picture.width;
  image.height = picture.height;
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> rgb;
  rgb.reserve(picture.pixels.size() * 3);
  for (const uint32_t pixel : picture.pixels)
    for (const unsigned shift : {16, 8, 0}) rgb.push_back(static_cast<uint8_t>(pixel >> shift));
  // Room for the worst case: nothing can be compressed.
  std::vector<uint8_t> bytes(PNG_IMAGE_PNG_SIZE_MAX(image));
  png_alloc_size_t size = bytes.size();
  if (png_image_write_to_memory(&image, bytes.data(), &size, 0, rgb.data(), 0, nullptr) == 0)
    return fail(ErrorKind::Internal, "PNG: {}", image.message);
  bytes.resize(size);
  return bytes;
}

}  // namespace lodge::display
