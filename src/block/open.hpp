// From a name to a graph: protocol, format, backing chain.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/file.hpp"
#include "block/format.hpp"
#include "block/io_context.hpp"
#include "block/node.hpp"

namespace lodge::block {

struct ImageOptions {
  std::optional<Format> format;  // otherwise by looking at it
  bool read_only = false;
  bool snapshot = false;     // what is written goes to a temporary file and is gone with it
  bool force_share = false;  // look at it whoever has it open
  bool backing = true;       // with the chain below it; otherwise what this image has nothing of reads as zeros
  bool check = false;        // damage that would be refused is what one wants to see
  Cache cache = Cache::Writeback;
  bool discard = true;
  unsigned also_writable = 0;               // so far down the chain there is another image that will be written; 0: none
  uint64_t metadata_bytes = 32u << 20;      // of tables in memory, for each image of the chain
  std::optional<std::string> backing_file;  // instead of the one in the header; empty: none
  std::optional<Format> backing_format;
};

// An image with all below it. Errors name the image that is wrong and, from below, the ones that led there.
Task<Result<std::unique_ptr<Node>>> open_image(IoContext& context, std::string name, ImageOptions options);

// A protocol alone: a file or device by its path ("file:" before it or not), or an NBD export.
Task<Result<std::unique_ptr<Node>>> open_protocol(IoContext& context, std::string name, const FileOptions& options);

// What a name in an image's header means: relative ones start at the folder of the image.
[[nodiscard]] std::string resolve_name(const std::string& image, const std::string& name);
// The path of a name that leads to a file; empty otherwise.
[[nodiscard]] std::string path_of(const std::string& name);

}  // namespace lodge::block
