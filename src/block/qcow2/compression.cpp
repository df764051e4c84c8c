#include "block/qcow2/compression.hpp"

#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace lodge::block::qcow2 {

namespace {

// Raw deflate with a window of 4 KiB: what the format says (docs/interop/qcow2, "Compressed Clusters Descriptor").
constexpr int kWindowBits = -12;

// What a thread needs for one cluster after another.
struct Deflate {
  z_stream stream{};
  bool usable = deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWindowBits, 9, Z_DEFAULT_STRATEGY) == Z_OK;
  Deflate() = default;
  Deflate(const Deflate&) = delete;
  Deflate& operator=(const Deflate&) = delete;
  ~Deflate() { deflateEnd(&stream); }
};
struct Inflate {
  z_stream stream{};
  bool usable = inflateInit2(&stream, kWindowBits) == Z_OK;
  Inflate() = default;
  Inflate(const Inflate&) = delete;
  Inflate& operator=(const Inflate&) = delete;
  ~Inflate() { inflateEnd(&stream); }
};

std::vector<std::byte> compress_zlib(std::span<const std::byte> cluster) {
  thread_local Deflate deflater;
  z_stream& stream = deflater.stream;
  if (!deflater.usable || deflateReset(&stream) != Z_OK) return {};
  std::vector<std::byte> out(cluster.size() - 1);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(cluster.data()));
  stream.avail_in = static_cast<uInt>(cluster.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const bool fits = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  out.resize(fits ? stream.total_out : 0);
  return out;
}

bool decompress_zlib(std::span<const std::byte> compressed, std::span<std::byte> cluster) {
  thread_local Inflate inflater;
  z_stream& stream = inflater.stream;
  if (!inflater.usable || inflateReset(&stream) != Z_OK) return false;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(compressed.data()));
  stream.avail_in = static_cast<uInt>(compressed.size());
  stream.next_out = reinterpret_cast<Bytef*>(cluster.data());
  stream.avail_out = static_cast<uInt>(cluster.size());
  const int end = inflate(&stream, Z_FINISH);
  // What follows the data need not be more of it: a full cluster is all that counts.
  return (end == Z_STREAM_END || end == Z_BUF_ERROR || end == Z_OK) && stream.avail_out == 0;
}

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

std::vector<std::byte> compress_zstd(std::span<const std::byte> cluster) {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  std::vector<std::byte> out(cluster.size() - 1);
  const size_t size = ZSTD_compress2(context.get(), out.data(), out.size(), cluster.data(), cluster.size());
  out.resize(ZSTD_isError(size) ? 0 : size);
  return out;
}

bool decompress_zstd(std::span<const std::byte> compressed, std::span<std::byte> cluster) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  ZSTD_DCtx_reset(context.get(), ZSTD_reset_session_only);
  ZSTD_inBuffer in{compressed.data(), compressed.size(), 0};
  ZSTD_outBuffer out{cluster.data(), cluster.size(), 0};
  // One frame or several; the rest of the last sector is not compressed data.
  while (out.pos < out.size) {
    const size_t in_before = in.pos, out_before = out.pos;
    const size_t left = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(left) || (in.pos == in_before && out.pos == out_before)) return false;
  }
  return true;
}

}  // namespace

std::vector<std::byte> compress(Compression kind, std::span<const std::byte> cluster) {
  return kind == Compression::Zstd ? compress_zstd(cluster) : compress_zlib(cluster);
}

bool decompress(Compression kind, std::span<const std::byte> compressed, std::span<std::byte> cluster) {
  return kind == Compression::Zstd ? decompress_zstd(compressed, cluster) : decompress_zlib(compressed, cluster);
}

}  // namespace lodge::block::qcow2
