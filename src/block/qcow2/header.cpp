#include "block/qcow2/header.hpp"

#include <algorithm>
#include <array>

namespace lodge::block::qcow2 {

namespace {

enum Field : uint32_t {
  kVersion = 4,
  kBackingOffset = 8,
  kBackingLength = 16,
  kClusterBits = 20,
  kSize = 24,
  kCryptMethod = 32,
  kL1Entries = 36,
  kL1Offset = 40,
  kRefcountTableOffset = 48,
  kRefcountTableClusters = 56,
  kSnapshots = 60,
  kSnapshotsOffset = 64,
  kIncompatible = 72,
  kCompatible = 80,
  kAutoclear = 88,
  kRefcountOrder = 96,
  kHeaderLength = 100,
  kCompressionType = 104,
};

struct FeatureName {
  uint8_t kind, bit;
  const char* name;
};
constexpr std::array kFeatureNames = {
    FeatureName{0, 0, "dirty bit"},        FeatureName{0, 1, "corrupt bit"},         FeatureName{0, 2, "external data file"},
    FeatureName{0, 3, "compression type"}, FeatureName{0, 4, "extended L2 entries"}, FeatureName{1, 0, "lazy refcounts"},
    FeatureName{2, 0, "bitmaps"},          FeatureName{2, 1, "raw external data"},
};
constexpr uint32_t kFeatureNameBytes = 48;

// The names of unknown incompatible features, from the image's own table where it has one.
std::string name_features(const Header& header, uint64_t unknown) {
  std::string names;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if (!(unknown >> bit & 1)) continue;
    std::string name = fmt::format("bit {}", bit);
    if (const Extension* table = header.find(extension::kFeatureNames)) {
      for (size_t at = 0; at + kFeatureNameBytes <= table->data.size(); at += kFeatureNameBytes) {
        const auto* entry = reinterpret_cast<const char*>(table->data.data()) + at;
        if (entry[0] == 0 && static_cast<uint8_t>(entry[1]) == bit)
          name = std::string(entry + 2, strnlen(entry + 2, kFeatureNameBytes - 2));
      }
    }
    names += (names.empty() ? "" : ", ") + name;
  }
  return names;
}

template <typename... Args>
std::unexpected<Error> damaged(const std::string& name, fmt::format_string<Args...> what, Args&&... args) {
  return fail(ErrorKind::Usage, "{}: not a usable qcow2 image: {}", name, fmt::format(what, std::forward<Args>(args)...));
}

Result<> parse_extensions(Header& header, std::span<const std::byte> cluster, uint64_t begin, uint64_t end, const std::string& name) {
  uint64_t at = begin;
  while (at + 8 <= end) {
    const uint32_t type = big32(&cluster[at]), length = big32(&cluster[at + 4]);
    if (type == extension::kEnd) return {};
    at += 8;
    if (length > end - at) return damaged(name, "a header extension (type {:#x}, {} bytes) runs over the header's end", type, length);
    header.extensions.push_back(
        {type, {cluster.begin() + static_cast<ptrdiff_t>(at), cluster.begin() + static_cast<ptrdiff_t>(at + length)}});
    at += (length + 7) & ~uint32_t{7};
  }
  return {};
}

Result<> check_features(const Header& header, uint32_t crypt_method, const std::string& name) {
  if (crypt_method != 0 || header.find(extension::kEncryption))
    return fail(
        ErrorKind::Unsupported,
        "{}: the image is encrypted, which Lodge does not read; decrypt it with 'qemu-img convert --object secret,... --image-opts ...'",
        name);
  if (const uint64_t unknown = header.incompatible & ~incompatible::kKnown)
    return fail(ErrorKind::Unsupported, "{}: the image uses features that this version does not know: {}", name,
                name_features(header, unknown));
  const bool other_compression = header.compression != Compression::Zlib;
  if (header.compression > Compression::Zstd) return damaged(name, "unknown compression type {}", static_cast<int>(header.compression));
  if (other_compression != ((header.incompatible & incompatible::kCompression) != 0))
    return damaged(name, "the compression type and its feature bit contradict each other");
  if (header.extended_l2() && header.cluster_bits < 14) return damaged(name, "extended L2 entries need clusters of 16 KiB or more");
  return {};
}

Result<> check_tables(const Header& header, const std::string& name, uint64_t file_size) {
  const uint64_t cluster = header.cluster_size();
  const auto table = [&](const char* what, uint64_t offset, uint64_t bytes, uint64_t alignment, bool needed) -> Result<> {
    if (!needed) return {};
    if (offset == 0 || offset % alignment != 0) return damaged(name, "the {} is at {:#x}, which cannot be", what, offset);
    if (offset > INT64_MAX - bytes) return damaged(name, "the {} is beyond all bounds", what);
    if (offset >= file_size) return damaged(name, "the {} is beyond the end of the file (the file was truncated?)", what);
    return {};
  };
  if (uint64_t{header.l1_entries} * 8 > kMaxL1Bytes) return damaged(name, "its L1 table of {} entries is too large", header.l1_entries);
  if (header.size > INT64_MAX) return damaged(name, "its size of {} bytes is too large", header.size);
  if (header.l1_entries < header.l1_entries_for(header.size))
    return damaged(name, "its L1 table of {} entries is too small for a disk of {} bytes", header.l1_entries, header.size);
  if (header.refcount_table_clusters == 0 || header.refcount_table_clusters * cluster > kMaxRefcountTableBytes)
    return damaged(name, "a refcount table of {} clusters", header.refcount_table_clusters);
  if (header.snapshots > kMaxSnapshots) return damaged(name, "{} snapshots", header.snapshots);
  TRY(table("L1 table", header.l1_offset, uint64_t{header.l1_entries} * 8, cluster, header.l1_entries > 0));
  TRY(table("refcount table", header.refcount_table_offset, header.refcount_table_clusters * cluster, cluster, true));
  TRY(table("snapshot table", header.snapshots_offset, 0, cluster, header.snapshots > 0));
  return {};
}

}  // namespace

uint64_t Header::l1_entries_for(uint64_t bytes) const {
  const uint64_t covered_bits = cluster_bits + static_cast<uint64_t>(std::countr_zero(l2_entries()));
  return (bytes >> covered_bits) + ((bytes & ((uint64_t{1} << covered_bits) - 1)) != 0);
}

const Extension* Header::find(uint32_t type) const {
  const auto found = std::ranges::find(extensions, type, &Extension::type);
  return found == extensions.end() ? nullptr : &*found;
}

std::string Header::text_of(uint32_t type) const {
  const Extension* found = find(type);
  return found ? std::string(reinterpret_cast<const char*>(found->data.data()), found->data.size()) : std::string();
}

void Header::set_text(uint32_t type, std::string_view text) {
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  const auto found = std::ranges::find(extensions, type, &Extension::type);
  if (text.empty()) {
    if (found != extensions.end()) extensions.erase(found);
  } else if (found != extensions.end()) {
    found->data.assign(bytes, bytes + text.size());
  } else {
    extensions.insert(extensions.begin(), {type, {bytes, bytes + text.size()}});
  }
}

bool has_magic(std::span<const std::byte> first_bytes) { return first_bytes.size() >= 4 && big32(first_bytes.data()) == kMagic; }

Result<uint64_t> header_cluster_size(std::span<const std::byte> first_bytes, const std::string& name) {
  if (first_bytes.size() < kHeaderV2) return damaged(name, "the file is shorter than a header");
  if (!has_magic(first_bytes)) return damaged(name, "it does not begin with the format's magic number");
  const uint32_t version = big32(&first_bytes[kVersion]);
  if (version != 2 && version != 3) return fail(ErrorKind::Unsupported, "{}: qcow2 version {}; versions 2 and 3 are known", name, version);
  const uint32_t bits = big32(&first_bytes[kClusterBits]);
  if (bits < kMinClusterBits || bits > kMaxClusterBits) return damaged(name, "clusters of 2^{} bytes (512 to 2 MiB are possible)", bits);
  return uint64_t{1} << bits;
}

Result<Header> parse_header(std::span<const std::byte> cluster, const std::string& name, uint64_t file_size) {
  Header header;
  if (TRY(header_cluster_size(cluster, name)) > cluster.size()) return damaged(name, "the file is shorter than a cluster");
  const auto at32 = [&](Field field) { return big32(&cluster[field]); };
  const auto at64 = [&](Field field) { return big64(&cluster[field]); };
  header.version = at32(kVersion);
  header.cluster_bits = at32(kClusterBits);
  header.size = at64(kSize);
  header.l1_entries = at32(kL1Entries);
  header.l1_offset = at64(kL1Offset);
  header.refcount_table_offset = at64(kRefcountTableOffset);
  header.refcount_table_clusters = at32(kRefcountTableClusters);
  header.snapshots = at32(kSnapshots);
  header.snapshots_offset = at64(kSnapshotsOffset);
  header.backing_file_offset = at64(kBackingOffset);
  uint64_t length = kHeaderV2;
  if (header.version >= 3) {
    header.incompatible = at64(kIncompatible);
    header.compatible = at64(kCompatible);
    header.autoclear = at64(kAutoclear);
    header.refcount_order = at32(kRefcountOrder);
    length = at32(kHeaderLength);
    if (length < kHeaderV3 || length % 8 != 0 || length > header.cluster_size()) return damaged(name, "a header of {} bytes", length);
    if (header.refcount_order > kMaxRefcountOrder) return damaged(name, "refcounts of 2^{} bits", header.refcount_order);
    if (length > kCompressionType) header.compression = static_cast<Compression>(cluster[kCompressionType]);
    if (length > kHeaderWithCompression) header.unknown_fields.assign(&cluster[kHeaderWithCompression], &cluster[0] + length);
  }
  const uint32_t backing_length = at32(kBackingLength);
  uint64_t extensions_end = header.cluster_size();
  if (header.backing_file_offset) {
    if (backing_length > kMaxBackingName || header.backing_file_offset > header.cluster_size() ||
        backing_length > header.cluster_size() - header.backing_file_offset || header.backing_file_offset < length)
      return damaged(name, "the name of its backing file lies at {:#x}, {} bytes", header.backing_file_offset, backing_length);
    header.backing_file.assign(reinterpret_cast<const char*>(&cluster[0]) + header.backing_file_offset, backing_length);
    if (header.backing_file.find('\0') != std::string::npos) return damaged(name, "the name of its backing file has a zero byte in it");
    extensions_end = header.backing_file_offset;
  }
  TRY(parse_extensions(header, cluster, length, extensions_end, name));
  TRY(check_features(header, at32(kCryptMethod), name));
  TRY(check_tables(header, name, file_size));
  return header;
}

Result<std::vector<std::byte>> serialise_header(Header& header, const std::string& name) {
  std::vector<std::byte> cluster(header.cluster_size());
  const auto put_32 = [&](Field field, uint32_t value) { put32(&cluster[field], value); };
  const auto put_64 = [&](Field field, uint64_t value) { put64(&cluster[field], value); };
  put32(cluster.data(), kMagic);
  put_32(kVersion, header.version);
  put_32(kClusterBits, header.cluster_bits);
  put_64(kSize, header.size);
  put_32(kL1Entries, header.l1_entries);
  put_64(kL1Offset, header.l1_offset);
  put_64(kRefcountTableOffset, header.refcount_table_offset);
  put_32(kRefcountTableClusters, header.refcount_table_clusters);
  put_32(kSnapshots, header.snapshots);
  put_64(kSnapshotsOffset, header.snapshots_offset);
  uint64_t at = kHeaderV2;
  if (header.version >= 3) {
    put_64(kIncompatible, header.incompatible);
    put_64(kCompatible, header.compatible);
    put_64(kAutoclear, header.autoclear);
    put_32(kRefcountOrder, header.refcount_order);
    const uint64_t length = kHeaderWithCompression + header.unknown_fields.size();
    put_32(kHeaderLength, static_cast<uint32_t>(length));
    cluster[kCompressionType] = static_cast<std::byte>(header.compression);
    if (length > cluster.size()) return fail(ErrorKind::Internal, "{}: the header does not fit its cluster", name);
    std::ranges::copy(header.unknown_fields, cluster.begin() + kHeaderWithCompression);
    at = length;
  }
  const auto room = [&](uint64_t bytes) { return at + bytes <= cluster.size(); };
  for (const Extension& entry : header.extensions) {
    if (!room(8 + entry.data.size() + 8)) {
      if (entry.type == extension::kFeatureNames) continue;  // these help people only
      return fail(ErrorKind::Usage, "{}: the header does not fit clusters of {} bytes; take larger ones", name, cluster.size());
    }
    put32(&cluster[at], entry.type);
    put32(&cluster[at + 4], static_cast<uint32_t>(entry.data.size()));
    std::ranges::copy(entry.data, cluster.begin() + static_cast<ptrdiff_t>(at + 8));
    at += 8 + ((entry.data.size() + 7) & ~uint64_t{7});
  }
  at += 8;  // the end of the extensions
  header.backing_file_offset = 0;
  if (!header.backing_file.empty()) {
    if (header.backing_file.size() > kMaxBackingName)
      return fail(ErrorKind::Usage, "{}: the name of the backing file is longer than {} bytes", name, kMaxBackingName);
    if (!room(header.backing_file.size()))
      return fail(ErrorKind::Usage, "{}: the name of the backing file does not fit clusters of {} bytes; take larger ones", name,
                  cluster.size());
    header.backing_file_offset = at;
    put_64(kBackingOffset, at);
    put_32(kBackingLength, static_cast<uint32_t>(header.backing_file.size()));
    std::memcpy(&cluster[at], header.backing_file.data(), header.backing_file.size());
  }
  return cluster;
}

Extension feature_names() {
  Extension table{extension::kFeatureNames, std::vector<std::byte>(kFeatureNames.size() * kFeatureNameBytes)};
  for (size_t i = 0; i < kFeatureNames.size(); ++i) {
    std::byte* const entry = &table.data[i * kFeatureNameBytes];
    entry[0] = static_cast<std::byte>(kFeatureNames[i].kind);
    entry[1] = static_cast<std::byte>(kFeatureNames[i].bit);
    std::strncpy(reinterpret_cast<char*>(entry) + 2, kFeatureNames[i].name, kFeatureNameBytes - 2);
  }
  return table;
}

}  // namespace lodge::block::qcow2
