#include "machine/cd_image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "base/load_little.hpp"
#include "machine/payload.hpp"

namespace lodge::machine {

namespace {

using namespace std::string_view_literals;

constexpr size_t kSector = 2048, kFirstDescriptor = 16 * kSector;
constexpr uint8_t kPrimary = 1;

std::string_view text_at(std::span<const uint8_t> bytes, size_t at, size_t length) {
  if (at >= bytes.size()) return {};
  return {reinterpret_cast<const char*>(bytes.data()) + at, std::min(length, bytes.size() - at)};
}

bool has_file_system(std::span<const uint8_t> begin) {
  // The standard identifier of a volume descriptor (ECMA-119, 8.1.2; ECMA-167, 2/9.1.2); High Sierra's stands behind a sector number.
  const std::string_view identifier = text_at(begin, kFirstDescriptor + 1, 5);
  constexpr std::array known{"CD001"sv, "BEA01"sv, "NSR02"sv, "NSR03"sv};
  return std::ranges::find(known, identifier) != known.end() || text_at(begin, kFirstDescriptor + 9, 5) == "CDROM";
}

// What people take for an ISO image, by its first bytes; what packs kernels as well is known elsewhere.
struct Mistake {
  std::string_view begins;
  std::string_view what;
};
constexpr std::string_view kPacked = "it is packed; unpack it first";
constexpr std::array kMistakes{
    Mistake{"BZh"sv, kPacked},
    Mistake{"PK\3\4"sv, kPacked},
    Mistake{"7z\xbc\xaf\x27\x1c"sv, kPacked},
    Mistake{"Rar!"sv, kPacked},
    Mistake{"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"sv,
            "it has raw sectors of 2352 bytes; make an ISO image of it first, as bchunk does"},
    Mistake{"<!doctype html"sv, "it is a web page; download the image again"},
    Mistake{"<html"sv, "it is a web page; download the image again"},
};

}  // namespace

std::optional<std::string> no_cd_image(std::span<const uint8_t> begin) {
  if (has_file_system(begin)) return {};
  const Compression compression = identify_compression(begin);
  if (compression != Compression::None && compression != Compression::Unknown) return std::string(kPacked);
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
  };
  for (const Mistake& mistake : kMistakes)
    if (std::ranges::equal(text_at(begin, 0, mistake.begins.size()), mistake.begins, same)) return std::string(mistake.what);
  if (begin.size() < kCdImageBegin) return fmt::format("it has only {} bytes", begin.size());
  if (text_at(begin, 510, 2) == "\x55\xaa"sv) return "it begins like a disk's; give it as DISK";
  return "there is neither ISO 9660 nor UDF on it";
}

uint64_t cd_volume_bytes(std::span<const uint8_t> begin) {
  if (begin.size() < kCdImageBegin || text_at(begin, kFirstDescriptor + 1, 5) != "CD001") return 0;
  const std::span<const uint8_t> descriptor = begin.subspan(kFirstDescriptor);
  if (descriptor[0] != kPrimary) return 0;
  return load_little(&descriptor[80], 4) * load_little(&descriptor[128], 2);
}

}  // namespace lodge::machine
