#include "machine/payload.hpp"

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>

#include "base/load_little.hpp"

namespace lodge::machine {

namespace {

using Bytes = std::span<const uint8_t>;
constexpr size_t kChunk = size_t{4} << 20;

bool starts_with(Bytes bytes, std::initializer_list<uint8_t> magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
}

std::unexpected<Error> damaged(Compression format) {
  return fail(ErrorKind::Usage, "the compressed kernel ({}) is damaged or cut short", name_of(format));
}
std::unexpected<Error> too_large(uint64_t limit) { return fail(ErrorKind::Usage, "the kernel unpacks to more than {} MiB", limit >> 20); }

// Makes room for more output; false when the limit is reached.
bool grow(std::vector<uint8_t>& out, size_t used, uint64_t limit) {
  if (used < out.size()) return true;
  if (out.size() >= limit) return false;
  out.resize(std::min<uint64_t>(limit, out.size() + std::max(kChunk, out.size() / 2)));
  return true;
}

Result<std::vector<uint8_t>> unpack_gzip(Bytes in, uint64_t limit) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) return fail(ErrorKind::Resource, "zlib cannot start");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  stream.next_in = const_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  std::vector<uint8_t> out;
  size_t used = 0;
  for (int status = Z_OK; status != Z_STREAM_END;) {
    if (!grow(out, used, limit)) return too_large(limit);
    stream.next_out = out.data() + used;
    stream.avail_out = static_cast<uInt>(out.size() - used);
    status = inflate(&stream, Z_NO_FLUSH);
    used = out.size() - stream.avail_out;
    if (status != Z_OK && status != Z_STREAM_END) return damaged(Compression::Gzip);
    if (status == Z_OK && stream.avail_in == 0 && stream.avail_out != 0) return damaged(Compression::Gzip);
  }
  out.resize(used);
  return out;
}

Result<std::vector<uint8_t>> unpack_xz(Bytes in, uint64_t limit) {
  lzma_stream stream = LZMA_STREAM_INIT;
  // Kernels use large dictionaries and the x86 BCJ filter; the decoder knows both.
  if (lzma_stream_decoder(&stream, UINT64_MAX, 0) != LZMA_OK) return fail(ErrorKind::Resource, "liblzma cannot start");
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> guard(&stream, lzma_end);
  stream.next_in = in.data();
  stream.avail_in = in.size();
  std::vector<uint8_t> out;
  size_t used = 0;
  for (lzma_ret status = LZMA_OK; status != LZMA_STREAM_END;) {
    if (!grow(out, used, limit)) return too_large(limit);
    stream.next_out = out.data() + used;
    stream.avail_out = out.size() - used;
    status = lzma_code(&stream, LZMA_RUN);
    used = out.size() - stream.avail_out;
    if (status != LZMA_OK && status != LZMA_STREAM_END) return damaged(Compression::Xz);
  }
  out.resize(used);
  return out;
}

Result<std::vector<uint8_t>> unpack_zstd(Bytes in, uint64_t limit) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  if (!context) return fail(ErrorKind::Resource, "libzstd cannot start");
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  std::vector<uint8_t> out;
  size_t used = 0;
  for (size_t left = 1; left != 0;) {
    if (!grow(out, used, limit)) return too_large(limit);
    ZSTD_outBuffer output{out.data(), out.size(), used};
    left = ZSTD_decompressStream(context.get(), &output, &input);
    const bool stalled = input.pos == input.size && output.pos == used && output.pos < output.size;
    used = output.pos;
    if (ZSTD_isError(left) || (left != 0 && stalled)) return damaged(Compression::Zstd);
  }
  out.resize(used);
  return out;
}

// The "legacy" frame that `lz4 -l` writes: magic, then blocks of up to 8 MiB, each behind its packed size.
Result<std::vector<uint8_t>> unpack_lz4(Bytes in, uint64_t limit) {
  constexpr size_t kBlock = size_t{8} << 20;
  constexpr uint32_t kMagic = 0x184c2102;
  std::vector<uint8_t> out;
  size_t at = 4;
  while (in.size() - at >= 4) {
    const auto packed = static_cast<uint32_t>(load_little(in.data() + at, 4));
    // What is left may be the four bytes of length that the kernel's build appends.
    if (in.size() - at == 4) break;
    at += 4;
    if (packed == kMagic) continue;  // concatenated frames
    if (packed == 0 || packed > in.size() - at) return damaged(Compression::Lz4);
    const size_t used = out.size();
    if (used >= limit) return too_large(limit);
    out.resize(used + kBlock);
    const int got = LZ4_decompress_safe(reinterpret_cast<const char*>(in.data() + at), reinterpret_cast<char*>(out.data() + used),
                                        static_cast<int>(packed), static_cast<int>(kBlock));
    if (got < 0) return damaged(Compression::Lz4);
    out.resize(used + static_cast<size_t>(got));
    at += packed;
  }
  if (out.empty()) return damaged(Compression::Lz4);
  if (out.size() > limit) return too_large(limit);
  return out;
}

}  // namespace

Compression identify_compression(Bytes payload) {
  if (starts_with(payload, {0x1f, 0x8b})) return Compression::Gzip;
  if (starts_with(payload, {0xfd, '7', 'z', 'X', 'Z', 0})) return Compression::Xz;
  if (starts_with(payload, {0x28, 0xb5, 0x2f, 0xfd})) return Compression::Zstd;
  if (starts_with(payload, {0x02, 0x21, 0x4c, 0x18})) return Compression::Lz4;
  if (starts_with(payload, {0x7f, 'E', 'L', 'F'})) return Compression::None;
  return Compression::Unknown;
}

std::string_view name_of(Compression compression) {
  switch (compression) {
    case Compression::Gzip: return "gzip";
    case Compression::Xz: return "xz";
    case Compression::Zstd: return "zstd";
    case Compression::Lz4: return "lz4";
    case Compression::None: return "none";
    case Compression::Unknown: return "unknown";
  }
  return "unknown";
}

Result<std::vector<uint8_t>> unpack(Bytes payload, uint64_t limit) {
  switch (identify_compression(payload)) {
    case Compression::Gzip: return unpack_gzip(payload, limit);
    case Compression::Xz: return unpack_xz(payload, limit);
    case Compression::Zstd: return unpack_zstd(payload, limit);
    case Compression::Lz4: return unpack_lz4(payload, limit);
    case Compression::None: return std::vector<uint8_t>(payload.begin(), payload.end());
    case Compression::Unknown: break;
  }
  return fail(ErrorKind::Unsupported, "the kernel's compression is not known");
}

}  // namespace lodge::machine
