// What all ACPI tables begin with (ACPI 6.5, table 5.4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

namespace lodge::machine::acpi {

struct [[gnu::packed]] Header {
  char signature[4];
  uint32_t length;
  uint8_t revision;
  uint8_t checksum;
  char oem_id[6];
  char oem_table_id[8];
  uint32_t oem_revision;
  char creator_id[4];
  uint32_t creator_revision;
};
static_assert(sizeof(Header) == 36);

inline uint8_t checksum_of(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0u));
}

template <typename T>
void append(std::vector<uint8_t>& out, const T& value) {
  const size_t at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

inline Header make_header(const char* signature, uint8_t revision) {
  Header header{};
  std::memcpy(header.signature, signature, 4);
  header.revision = revision;
  std::memcpy(header.oem_id, "LODGE ", 6);
  std::memcpy(header.oem_table_id, "LODGEPC ", 8);
  header.oem_revision = 1;
  std::memcpy(header.creator_id, "LDGE", 4);
  header.creator_revision = 1;
  return header;
}

// Sets length and checksum of a complete table.
inline std::vector<uint8_t> finish(std::vector<uint8_t> table) {
  const auto length = static_cast<uint32_t>(table.size());
  std::memcpy(table.data() + offsetof(Header, length), &length, sizeof length);
  table[offsetof(Header, checksum)] = 0;
  table[offsetof(Header, checksum)] = checksum_of(table);
  return table;
}

}  // namespace lodge::machine::acpi
