// The on-disk format, after QEMU's docs/interop/qcow2. All numbers are big endian.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace lodge::block::qcow2 {

constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"

// Bytes of the header.
constexpr uint32_t kHeaderV2 = 72, kHeaderV3 = 104, kHeaderWithCompression = 112;

constexpr uint32_t kMinClusterBits = 9, kMaxClusterBits = 21;
constexpr uint32_t kMaxRefcountOrder = 6;
constexpr uint64_t kMaxL1Bytes = 32 << 20, kMaxRefcountTableBytes = 8 << 20;  // as in QEMU, which does not open larger ones
constexpr uint32_t kMaxSnapshots = 65536;
constexpr uint64_t kMaxSnapshotTableBytes = 64 << 20, kMaxSnapshotExtraBytes = 1024;
constexpr uint32_t kMaxBackingName = 1023;

namespace incompatible {
constexpr uint64_t kDirty = 1, kCorrupt = 2, kDataFile = 4, kCompression = 8, kExtendedL2 = 16;
constexpr uint64_t kKnown = 31;
}  // namespace incompatible
namespace compatible {
constexpr uint64_t kLazyRefcounts = 1;
}
namespace autoclear {
constexpr uint64_t kBitmaps = 1, kRawDataFile = 2;
constexpr uint64_t kKnown = 3;
}  // namespace autoclear

namespace extension {
constexpr uint32_t kEnd = 0, kBackingFormat = 0xe2792aca, kFeatureNames = 0x6803f857, kBitmaps = 0x23852875, kEncryption = 0x0537be77,
                   kDataFile = 0x44415441;
}

enum class Compression : uint8_t { Zlib = 0, Zstd = 1 };

// Entries of the first and second level tables.
constexpr uint64_t kCopied = uint64_t{1} << 63;  // the refcount is exactly one: may be written in place
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kZero = 1;  // standard second-level entries, version 3
constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;
constexpr uint64_t kL1Reserved = ~(kCopied | kOffsetMask);
constexpr uint64_t kL2Reserved = ~(kCopied | kCompressed | kOffsetMask | kZero);
constexpr uint64_t kRefcountTableReserved = 0x1ff;
constexpr uint32_t kSubclusters = 32;

inline uint16_t big16(const void* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap16(value);
}
inline uint32_t big32(const void* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap32(value);
}
inline uint64_t big64(const void* at) {
  uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap64(value);
}
inline void put16(void* at, uint16_t value) {
  value = __builtin_bswap16(value);
  std::memcpy(at, &value, sizeof value);
}
inline void put32(void* at, uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(at, &value, sizeof value);
}
inline void put64(void* at, uint64_t value) {
  value = __builtin_bswap64(value);
  std::memcpy(at, &value, sizeof value);
}

}  // namespace lodge::block::qcow2
