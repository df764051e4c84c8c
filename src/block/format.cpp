#include "block/format.hpp"

#include <array>
#include <cstring>

namespace lodge::block {

namespace {

struct Magic {
  std::string_view format;
  size_t offset;
  std::string_view bytes;
};
using namespace std::string_view_literals;
// As the formats' own documents have them.
constexpr auto kMagics = std::to_array<Magic>({
    {"qcow", 0, "QFI\xfb\0\0\0\1"sv},
    {"qcow2", 0, "QFI\xfb"sv},
    {"qed", 0, "QED\0"sv},
    {"vmdk", 0, "KDMV"sv},
    {"vmdk", 0, "COWD"sv},
    {"vmdk", 0, "# Disk DescriptorFile"sv},
    {"vhdx", 0, "vhdxfile"sv},
    {"vpc", 0, "conectix"sv},
    {"vdi", 64, "\x7f\x10\xda\xbe"sv},
    {"parallels", 0, "WithoutFreeSpace"sv},
    {"parallels", 0, "WithouFreSpacExt"sv},
    {"luks", 0, "LUKS\xba\xbe"sv},
});

constexpr std::string_view kKnown = "Lodge has raw and qcow2";

}  // namespace

std::string_view format_name(Format format) { return format == Format::Raw ? "raw" : "qcow2"; }

Result<Format> parse_format(std::string_view name) {
  if (name == "raw") return Format::Raw;
  if (name == "qcow2") return Format::Qcow2;
  for (const Magic& magic : kMagics)
    if (magic.format == name) return fail(ErrorKind::Usage, "images in the format '{}' cannot be used yet: {}", name, kKnown);
  return fail(ErrorKind::Usage, "there is no format '{}': {}", name, kKnown);
}

std::string_view recognise(std::span<const std::byte> first_sector) {
  for (const Magic& magic : kMagics)
    if (first_sector.size() >= magic.offset + magic.bytes.size() &&
        std::memcmp(first_sector.data() + magic.offset, magic.bytes.data(), magic.bytes.size()) == 0)
      return magic.format;
  return {};
}

}  // namespace lodge::block
