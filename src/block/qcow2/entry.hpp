// A second-level entry: what it says about a cluster and, with extended entries, about each of its 32 subclusters.
#pragma once

#include "block/qcow2/header.hpp"

namespace lodge::block::qcow2 {

enum class Kind : uint8_t {
  Unallocated,  // the backing file's contents, zeros without one
  Zero,         // reads as zeros; a host cluster may be set aside
  Normal,       // in the host cluster
  Compressed,
};

struct Entry {
  uint64_t word = 0;
  uint64_t bitmap = 0;  // extended entries: allocated subclusters in the lower half, zero ones in the upper

  static Entry load(const std::byte* at, bool extended) { return {big64(at), extended ? big64(at + 8) : 0}; }
  void store(std::byte* at, bool extended) const {
    put64(at, word);
    if (extended) put64(at + 8, bitmap);
  }

  [[nodiscard]] bool compressed() const { return word & kCompressed; }
  // Of the host cluster; 0: none. With an external data file 0 is a place too: has_host() knows.
  [[nodiscard]] uint64_t host() const { return compressed() ? 0 : word & kOffsetMask; }
  [[nodiscard]] bool has_host(bool data_file) const { return !compressed() && ((word & kOffsetMask) || (data_file && (word & kCopied))); }
  [[nodiscard]] bool copied() const { return word & kCopied; }
  [[nodiscard]] Kind kind(uint32_t subcluster, const Header& header) const {
    if (compressed()) return Kind::Compressed;
    if (header.extended_l2()) {
      if (bitmap >> (32 + subcluster) & 1) return Kind::Zero;
      return bitmap >> subcluster & 1 ? Kind::Normal : Kind::Unallocated;
    }
    if (word & kZero) return Kind::Zero;
    return has_host(header.has_data_file()) ? Kind::Normal : Kind::Unallocated;
  }
};

// Where a compressed cluster's data lies: it may begin at any byte, and ends within a sector.
struct CompressedPlace {
  uint64_t offset, length;

  static CompressedPlace of(uint64_t word, uint32_t cluster_bits) {
    const uint32_t shift = 62 - (cluster_bits - 8);
    const uint64_t offset = word & ((uint64_t{1} << shift) - 1);
    const uint64_t sectors = ((word & (kCompressed - 1)) >> shift) + 1;
    return {offset, sectors * 512 - offset % 512};
  }
  // The entry for so many bytes at an offset.
  static uint64_t word_for(uint64_t offset, uint64_t length, uint32_t cluster_bits) {
    const uint32_t shift = 62 - (cluster_bits - 8);
    const uint64_t sectors = (offset + length - 1) / 512 - offset / 512;
    return kCompressed | sectors << shift | offset;
  }
};

}  // namespace lodge::block::qcow2
