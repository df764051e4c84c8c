// Whether an image is one of a CD or DVD, before a guest is left to find out that it is not.
//
// Pure functions of bytes. Sources: ECMA-119 (ISO 9660), ECMA-167 part 2 (UDF's volume recognition).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace lodge::machine {

// How much of an image it takes, in bytes: the system area (ECMA-119, 6.2.1) and the first descriptor, in sector 16.
inline constexpr uint64_t kCdImageBegin = uint64_t{17} * 2048;

// Why an image that begins with these bytes (kCdImageBegin of them, or all that it has) is none of a CD or DVD, and what to do about it:
// to go on after the file's name. Nothing for one that has ISO 9660, High Sierra or UDF on it.
[[nodiscard]] std::optional<std::string> no_cd_image(std::span<const uint8_t> begin);

// The size in bytes of the file system that begins so, by its primary volume descriptor (ECMA-119, 8.4.8 and 8.4.12); 0 if that has none.
[[nodiscard]] uint64_t cd_volume_bytes(std::span<const uint8_t> begin);

}  // namespace lodge::machine
