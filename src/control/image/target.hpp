// Images that are made: the options of -o, and the making.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/qcow2/image.hpp"
#include "control/image/command.hpp"

namespace lodge::control::image {

struct Target {
  block::Format format = block::Format::Raw;
  std::optional<uint64_t> size;  // bytes
  block::qcow2::CreateOptions qcow2;
  block::qcow2::Preallocation preallocation = block::qcow2::Preallocation::Off;
};

// -f (or -O) and -o. ErrorKind::Usage names the option.
Result<Target> parse_target(const std::string& format, const std::vector<NamedValue>& options);
// What -o help says.
std::string target_help(block::Format format);
// "fmt=qcow2 cluster_size=65536 ...", as 'create' tells what it made.
std::string describe(const Target& target);

// Writes an empty image of that kind to the path (a new file, an old one that nobody uses, a device), with its data file, and opens it
// for writing, without a backing file. A new file that could not be made whole is removed.
Task<Result<std::unique_ptr<Node>>> make_image(IoContext& context, const std::string& path, const Target& target, block::Cache cache);

}  // namespace lodge::control::image
