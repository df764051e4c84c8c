#include <algorithm>

#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {

Task<Result<>> create(Node& file, const CreateOptions& options) {
  Header header;
  header.version = options.version;
  header.cluster_bits = options.cluster_bits;
  header.size = options.size;
  header.refcount_order = static_cast<uint32_t>(std::countr_zero(options.refcount_bits));
  header.compression = options.compression;
  if (options.compression != Compression::Zlib) header.incompatible |= incompatible::kCompression;
  if (options.extended_l2) header.incompatible |= incompatible::kExtendedL2;
  if (options.lazy_refcounts) header.compatible |= compatible::kLazyRefcounts;
  if (!options.data_file.empty()) {
    header.incompatible |= incompatible::kDataFile;
    if (options.raw_data_file) header.autoclear |= autoclear::kRawDataFile;
    header.set_text(extension::kDataFile, options.data_file);
  }
  if (options.version >= 3) header.extensions.push_back(feature_names());
  header.backing_file = options.backing_file;
  header.set_text(extension::kBackingFormat, options.backing_file.empty() ? "" : options.backing_format);

  // Header, refcount table, refcount blocks, first-level table.
  const uint64_t cluster = header.cluster_size();
  const uint64_t l1_entries = header.l1_entries_for(options.size);
  if (l1_entries * 8 > kMaxL1Bytes)
    co_return fail(ErrorKind::Usage, "{}: {} bytes are too many for clusters of {} bytes; take larger clusters", file.name(), options.size,
                   cluster);
  const uint64_t l1_clusters = std::max<uint64_t>(1, (l1_entries * 8 + cluster - 1) / cluster);
  uint64_t blocks = 1, table_clusters = 1;
  for (;;) {
    const uint64_t clusters = 1 + table_clusters + blocks + l1_clusters;
    const uint64_t needed = (clusters + header.refcounts_per_block() - 1) / header.refcounts_per_block();
    const uint64_t table_needed = (needed * 8 + cluster - 1) / cluster;
    if (needed <= blocks && table_needed <= table_clusters) break;
    blocks = std::max(blocks, needed);
    table_clusters = std::max(table_clusters, table_needed);
  }
  header.refcount_table_offset = cluster;
  header.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  const uint64_t blocks_offset = (1 + table_clusters) * cluster;
  header.l1_offset = blocks_offset + blocks * cluster;
  header.l1_entries = static_cast<uint32_t>(l1_entries);
  const uint64_t clusters = 1 + table_clusters + blocks + l1_clusters;

  auto first = serialise_header(header, file.name());
  if (!first) co_return std::unexpected(std::move(first).error());
  std::vector<std::byte> tables((table_clusters + blocks) * cluster);
  for (uint64_t n = 0; n < blocks; ++n) put64(&tables[n * 8], blocks_offset + n * cluster);
  for (uint64_t n = 0; n < clusters; ++n)
    set_refcount_in(&tables[(table_clusters + n / header.refcounts_per_block()) * cluster], n % header.refcounts_per_block(),
                    header.refcount_order, 1);
  if (file.limits().grows_with_zeroes)
    CO_TRY(file.resize(clusters * cluster));
  else
    CO_TRY(write_zeroes(file, header.l1_offset, l1_clusters * cluster));
  CO_TRY(write(file, cluster, tables.data(), tables.size()));
  // The header last: what is cut off before looks like no image at all.
  CO_TRY(flush(file));
  CO_TRY(write(file, 0, first->data(), first->size()));
  co_return co_await flush(file);
}

}  // namespace lodge::block::qcow2
