// Unpacks the compressed kernel inside a bzImage.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace lodge::machine {

enum class Compression { Gzip, Xz, Zstd, Lz4, None, Unknown };

// By the first bytes. None: an ELF file that is not compressed.
[[nodiscard]] Compression identify_compression(std::span<const uint8_t> payload);
[[nodiscard]] std::string_view name_of(Compression compression);

// `payload` is what payload_offset and payload_length of the setup header delimit; the four bytes of length
// that the kernel's build appends behind streams other than gzip may be there. Fails with ErrorKind::Usage on
// damaged data or when the result would exceed `limit` bytes.
[[nodiscard]] Result<std::vector<uint8_t>> unpack(std::span<const uint8_t> payload, uint64_t limit);

}  // namespace lodge::machine
