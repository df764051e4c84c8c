// The header of an image with its extensions, checked.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "block/qcow2/format.hpp"

namespace lodge::block::qcow2 {

struct Extension {
  uint32_t type;
  std::vector<std::byte> data;
};

struct Header {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint64_t size = 0;  // of the guest's disk, bytes
  uint32_t l1_entries = 0;
  uint64_t l1_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshots = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0, compatible = 0, autoclear = 0;
  uint32_t refcount_order = 4;
  Compression compression = Compression::Zlib;
  std::vector<std::byte> unknown_fields;  // behind those known here, kept
  std::vector<Extension> extensions;      // in their order; those with fields below among them
  std::string backing_file;               // empty: none
  uint64_t backing_file_offset = 0;

  [[nodiscard]] uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  [[nodiscard]] uint64_t refcount_bits() const { return uint64_t{1} << refcount_order; }
  [[nodiscard]] bool extended_l2() const { return incompatible & incompatible::kExtendedL2; }
  [[nodiscard]] bool has_data_file() const { return incompatible & incompatible::kDataFile; }
  [[nodiscard]] uint64_t l2_entry_size() const { return extended_l2() ? 16 : 8; }
  [[nodiscard]] uint64_t l2_entries() const { return cluster_size() / l2_entry_size(); }
  [[nodiscard]] uint64_t subcluster_size() const { return extended_l2() ? cluster_size() / kSubclusters : cluster_size(); }
  [[nodiscard]] uint64_t refcounts_per_block() const { return cluster_size() * 8 / refcount_bits(); }
  // How many first-level entries a disk of so many bytes has.
  [[nodiscard]] uint64_t l1_entries_for(uint64_t bytes) const;

  [[nodiscard]] const Extension* find(uint32_t type) const;
  [[nodiscard]] std::string text_of(uint32_t type) const;  // of an extension that is a name; empty without it
  void set_text(uint32_t type, std::string_view text);     // empty: removes it
  [[nodiscard]] std::string backing_format() const { return text_of(extension::kBackingFormat); }
  [[nodiscard]] std::string data_file() const { return text_of(extension::kDataFile); }
};

// Whether it begins as an image of this format does.
[[nodiscard]] bool has_magic(std::span<const std::byte> first_bytes);
// How many bytes parse_header() has to see: those of the first cluster. `first_bytes`: 72 or more.
Result<uint64_t> header_cluster_size(std::span<const std::byte> first_bytes, const std::string& name);
// Errors (ErrorKind::Usage) say what is wrong and what to do. `file_size`: of the file that holds the metadata.
Result<Header> parse_header(std::span<const std::byte> first_cluster, const std::string& name, uint64_t file_size);
// The first cluster, padded with zeros to its size; sets backing_file_offset. Fails where it does not fit.
Result<std::vector<std::byte>> serialise_header(Header& header, const std::string& name);
// The names of all feature bits, as an extension: what other programs print about bits that they do not know.
[[nodiscard]] Extension feature_names();

}  // namespace lodge::block::qcow2
