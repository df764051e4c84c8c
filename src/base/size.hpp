// Numbers of bytes as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace lodge {

// "4096", "64k", "1.5G": bytes, or with k, M, G, T, P or E (powers of 1024; either case; "64kB" and "64KiB" too). ErrorKind::Usage.
Result<uint64_t> parse_bytes(std::string_view text);

// "1.5 GiB", with at most three significant digits; exact below 1 KiB.
std::string format_bytes(uint64_t bytes);

}  // namespace lodge
