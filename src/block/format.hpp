// Image formats: their names, and how an image is recognised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.hpp"

namespace lodge::block {

enum class Format : uint8_t { Raw, Qcow2 };

[[nodiscard]] std::string_view format_name(Format format);
// ErrorKind::Usage names the formats that there are.
Result<Format> parse_format(std::string_view name);

// The format whose magic the first sector (512 bytes, fewer of a shorter file) has, also of formats that Lodge cannot read ("vmdk",
// ...). Empty: none, so it is raw.
[[nodiscard]] std::string_view recognise(std::span<const std::byte> first_sector);

}  // namespace lodge::block
