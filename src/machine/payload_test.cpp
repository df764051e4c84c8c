#include "machine/payload.hpp"

#include <gtest/gtest.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <random>

namespace lodge::machine {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr uint64_t kLimit = 64 << 20;

// Something that compresses, and is larger than one block of any format's output buffer.
Bytes sample(size_t size) {
  std::minstd_rand random(7);
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i % 977 == 0 ? random() : i / 64);
  return bytes;
}

Bytes gzip(const Bytes& in) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  Bytes out(deflateBound(&stream, in.size()));
  stream.next_in = const_cast<uint8_t*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// As the kernel's build does it: x86 BCJ filter before LZMA2.
Bytes xz_with_bcj(const Bytes& in) {
  lzma_options_lzma options;
  lzma_lzma_preset(&options, 6);
  const lzma_filter filters[] = {{LZMA_FILTER_X86, nullptr}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
  Bytes out(lzma_stream_buffer_bound(in.size()));
  size_t used = 0;
  EXPECT_EQ(lzma_stream_buffer_encode(const_cast<lzma_filter*>(filters), LZMA_CHECK_CRC32, nullptr, in.data(), in.size(), out.data(), &used,
                                      out.size()),
            LZMA_OK);
  out.resize(used);
  return out;
}

Bytes zstd(const Bytes& in) {
  Bytes out(ZSTD_compressBound(in.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3));
  return out;
}

void append32(Bytes& out, uint64_t value) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

Bytes lz4_legacy(const Bytes& in) {
  constexpr size_t kBlock = 8 << 20;
  Bytes out;
  append32(out, 0x184c2102);
  for (size_t at = 0; at < in.size(); at += kBlock) {
    const auto size = static_cast<int>(std::min(kBlock, in.size() - at));
    Bytes block(static_cast<size_t>(LZ4_compressBound(size)));
    const int packed = LZ4_compress_default(reinterpret_cast<const char*>(in.data() + at), reinterpret_cast<char*>(block.data()), size,
                                            static_cast<int>(block.size()));
    append32(out, static_cast<uint64_t>(packed));
    out.insert(out.end(), block.begin(), block.begin() + packed);
  }
  return out;
}

struct Format {
  const char* name;
  Compression compression;
  Bytes (*pack)(const Bytes&);
  bool length_appended;  // by the kernel's build
};
std::ostream& operator<<(std::ostream& out, const Format& format) { return out << format.name; }

class Payload : public testing::TestWithParam<Format> {};

TEST_P(Payload, UnpacksWhatWasPacked) {
  const Bytes original = sample(9 << 20);
  Bytes packed = GetParam().pack(original);
  EXPECT_EQ(identify_compression(packed), GetParam().compression);
  if (GetParam().length_appended) append32(packed, original.size());
  const auto unpacked = unpack(packed, kLimit);
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  EXPECT_TRUE(*unpacked == original);
}

TEST_P(Payload, CutShortIsRefused) {
  const Bytes packed = GetParam().pack(sample(100000));
  for (size_t keep : {size_t{6}, packed.size() / 2, packed.size() - 20}) {
    const auto result = unpack(std::span(packed).first(keep), kLimit);
    ASSERT_FALSE(result) << keep;
    EXPECT_EQ(result.error().kind, ErrorKind::Usage);
  }
}

TEST_P(Payload, MoreThanTheLimitIsRefused) {
  const auto result = unpack(GetParam().pack(sample(9 << 20)), 5 << 20);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("more than 5 MiB"), std::string::npos) << result.error().message;
}

// Whatever the bytes say, there is an answer and no crash.
TEST_P(Payload, DamageNeverCrashes) {
  const Bytes packed = GetParam().pack(sample(20000));
  std::minstd_rand random(11);
  for (int round = 0; round < 300; ++round) {
    Bytes damaged = packed;
    for (int i = 0; i < 3; ++i) damaged[6 + random() % (damaged.size() - 6)] = static_cast<uint8_t>(random());
    const auto result = unpack(damaged, 1 << 20);
    if (result) {
      EXPECT_LE(result->size(), 1u << 20);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Payload,
                         testing::Values(Format{"gzip", Compression::Gzip, gzip, false}, Format{"xz", Compression::Xz, xz_with_bcj, true},
                                         Format{"zstd", Compression::Zstd, zstd, true}, Format{"lz4", Compression::Lz4, lz4_legacy, true}),
                         [](const auto& test) { return test.param.name; });

TEST(PayloadFormat, UnknownAndPlain) {
  EXPECT_EQ(identify_compression({}), Compression::Unknown);
  EXPECT_EQ(identify_compression(Bytes{'B', 'Z', 'h'}), Compression::Unknown);
  EXPECT_EQ(identify_compression(Bytes{0x7f, 'E', 'L', 'F', 2}), Compression::None);
  EXPECT_FALSE(unpack(Bytes{1, 2, 3}, kLimit));
}

}  // namespace
}  // namespace lodge::machine
