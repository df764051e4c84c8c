#include "control/image/target.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>

#include "base/size.hpp"
#include "block/raw.hpp"

namespace lodge::control::image {

namespace {

using block::Format;
using block::qcow2::Preallocation;

Result<bool> parse_switch(const std::string& value) {
  if (value == "on" || value == "true" || value == "yes") return true;
  if (value == "off" || value == "false" || value == "no") return false;
  return fail(ErrorKind::Usage, "'{}' is neither on nor off", value);
}

Result<uint32_t> parse_power(const std::string& value, uint64_t least, uint64_t most, std::string_view what) {
  const uint64_t number = TRY(parse_bytes(value));
  if (number < least || number > most || !std::has_single_bit(number))
    return fail(ErrorKind::Usage, "'{}' is not {}: a power of two from {} to {}", value, what, least, most);
  return static_cast<uint32_t>(number);
}

constexpr auto kPreallocations = std::to_array<std::pair<std::string_view, Preallocation>>(
    {{"off", Preallocation::Off}, {"metadata", Preallocation::Metadata}, {"falloc", Preallocation::Falloc}, {"full", Preallocation::Full}});

Result<Preallocation> parse_preallocation(const std::string& value) {
  for (const auto& [name, mode] : kPreallocations)
    if (value == name) return mode;
  return fail(ErrorKind::Usage, "'{}' is none of off, metadata, falloc and full", value);
}

std::string_view preallocation_name(Preallocation mode) {
  for (const auto& [name, one] : kPreallocations)
    if (mode == one) return name;
  return "off";
}

struct TargetOption {
  std::string_view name, argument, help;
  bool raw;  // has it too
  Result<> (*set)(Target& target, const std::string& value);
};

constexpr auto kOptions = std::to_array<TargetOption>({
    {"size", "SIZE", "of the guest's disk", true,
     [](Target& target, const std::string& value) -> Result<> {
       target.size = TRY(parse_bytes(value));
       return {};
     }},
    {"preallocation", "MODE", "space that is taken at once: off (default), metadata (qcow2), falloc or full", true,
     [](Target& target, const std::string& value) -> Result<> {
       target.preallocation = TRY(parse_preallocation(value));
       return {};
     }},
    {"compat", "VERSION", "v3 or 1.1 (default), v2 or 0.10", false,
     [](Target& target, const std::string& value) -> Result<> {
       if (value == "1.1" || value == "v3") {
         target.qcow2.version = 3;
       } else if (value == "0.10" || value == "v2") {
         target.qcow2.version = 2;
       } else {
         return fail(ErrorKind::Usage, "'{}' is neither v3 (1.1) nor v2 (0.10)", value);
       }
       return {};
     }},
    {"backing_file", "NAME", "the image that is shown where this one has nothing", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.backing_file = value;
       return {};
     }},
    {"backing_fmt", "FORMAT", "its format", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.backing_format = block::format_name(TRY(block::parse_format(value)));
       return {};
     }},
    {"cluster_size", "SIZE", "512 to 2M (default 64k)", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.cluster_bits = static_cast<uint32_t>(std::countr_zero(TRY(parse_power(value, 512, 2u << 20, "a cluster's size"))));
       return {};
     }},
    {"extended_l2", "on|off", "clusters in 32 parts, of which each may be the backing file's (default off)", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.extended_l2 = TRY(parse_switch(value));
       return {};
     }},
    {"refcount_bits", "BITS", "of the count of users of a cluster: 1 to 64 (default 16)", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.refcount_bits = TRY(parse_power(value, 1, 64, "a width of refcounts"));
       return {};
     }},
    {"lazy_refcounts", "on|off", "said to whoever writes it; Lodge's refcounts are never late (default off)", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.lazy_refcounts = TRY(parse_switch(value));
       return {};
     }},
    {"compression_type", "zlib|zstd", "of compressed clusters (default zlib)", false,
     [](Target& target, const std::string& value) -> Result<> {
       if (value == "zlib") {
         target.qcow2.compression = block::qcow2::Compression::Zlib;
       } else if (value == "zstd") {
         target.qcow2.compression = block::qcow2::Compression::Zstd;
       } else {
         return fail(ErrorKind::Usage, "'{}' is neither zlib nor zstd", value);
       }
       return {};
     }},
    {"data_file", "NAME", "where the guest's data goes; this image then has the metadata alone", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.data_file = value;
       return {};
     }},
    {"data_file_raw", "on|off", "the data file is a raw image of the same disk at all times (default off)", false,
     [](Target& target, const std::string& value) -> Result<> {
       target.qcow2.raw_data_file = TRY(parse_switch(value));
       return {};
     }},
});

// What does not go together.
Result<> check_target(const Target& target) {
  const block::qcow2::CreateOptions& qcow2 = target.qcow2;
  if (target.format == Format::Raw) {
    if (target.preallocation == Preallocation::Metadata) return fail(ErrorKind::Usage, "-o preallocation=metadata: a raw image has none");
    return {};
  }
  const bool second = qcow2.version < 3;
  if (second && qcow2.extended_l2) return fail(ErrorKind::Usage, "-o extended_l2=on: needs compat=v3");
  if (second && qcow2.lazy_refcounts) return fail(ErrorKind::Usage, "-o lazy_refcounts=on: needs compat=v3");
  if (second && qcow2.refcount_bits != 16) return fail(ErrorKind::Usage, "-o refcount_bits={}: needs compat=v3", qcow2.refcount_bits);
  if (second && qcow2.compression != block::qcow2::Compression::Zlib) return fail(ErrorKind::Usage, "-o compression_type: needs compat=v3");
  if (second && !qcow2.data_file.empty()) return fail(ErrorKind::Usage, "-o data_file: needs compat=v3");
  if (qcow2.extended_l2 && qcow2.cluster_bits < 14)
    return fail(ErrorKind::Usage, "-o extended_l2=on: needs clusters of 16k or more (-o cluster_size=128k is a good size for it)");
  if (qcow2.raw_data_file && qcow2.data_file.empty()) return fail(ErrorKind::Usage, "-o data_file_raw=on: needs data_file");
  if (qcow2.raw_data_file && !qcow2.backing_file.empty())
    return fail(ErrorKind::Usage, "-o data_file_raw=on: the data file could not show what is the backing file's; leave one of them out");
  if (!qcow2.backing_format.empty() && qcow2.backing_file.empty()) return fail(ErrorKind::Usage, "-o backing_fmt: needs a backing file");
  if (target.preallocation != Preallocation::Off && !qcow2.backing_file.empty())
    return fail(ErrorKind::Usage, "-o preallocation={}: would hide the backing file; leave one of them out",
                preallocation_name(target.preallocation));
  return {};
}

Task<Result<std::unique_ptr<Node>>> fill(IoContext& context, std::unique_ptr<block::File> file, const Target& target, block::Cache cache) {
  // Disks have whole sectors; QEMU makes no others, and does not read the last part of one.
  const uint64_t size = (target.size.value_or(0) + block::kSector - 1) / block::kSector * block::kSector;
  if (target.format == Format::Raw) {
    if (file->is_device() && file->size() < size)
      co_return fail(ErrorKind::Usage, "{}: the device has {} bytes, and {} are wanted", file->name(), file->size(), size);
    CO_TRY(file->resize(size));
    if (target.preallocation == Preallocation::Falloc) CO_TRY(write_zeroes(*file, 0, size, false));
    if (target.preallocation == Preallocation::Full) CO_TRY(write_zeroes_as_data(*file, 0, size));
    co_return std::make_unique<block::Raw>(std::move(file));
  }
  std::unique_ptr<block::File> data;
  if (!target.qcow2.data_file.empty()) {
    auto made = block::File::create(context, block::resolve_name(file->name(), target.qcow2.data_file), {.cache = cache});
    if (!made) co_return std::unexpected(std::move(made).error());
    data = std::move(*made);
    CO_TRY(data->resize(size));
  }
  block::qcow2::CreateOptions options = target.qcow2;
  options.size = size;
  CO_TRY(block::qcow2::create(*file, options));
  CO_TRY_VALUE(image, block::qcow2::Image::open(context, std::move(file), {}));
  if (data) image->set_data_file(std::move(data));
  if (target.preallocation != Preallocation::Off) CO_TRY(image->preallocate(0, size, target.preallocation));
  co_return std::move(image);
}

}  // namespace

Result<Target> parse_target(const std::string& format, const std::vector<NamedValue>& options) {
  Target target;
  target.format = TRY(block::parse_format(format));
  for (const NamedValue& option : options) {
    if (option.name.starts_with("encrypt") || option.name == "encryption")
      return fail(ErrorKind::Unsupported,
                  "-o {}: Lodge has no encrypted images; encrypt the disk inside the guest, or the host's file system", option.name);
    const TargetOption* found = nullptr;
    for (const TargetOption& one : kOptions)
      if (one.name == option.name && (one.raw || target.format == Format::Qcow2)) found = &one;
    if (!found)
      return fail(ErrorKind::Usage, "-o {}: {} images have no such option; '-o help' lists those that there are", option.name, format);
    auto set = found->set(target, option.value);
    if (!set) return fail(set.error().kind, "-o {}: {}", option.name, set.error().message);
  }
  TRY(check_target(target));
  return target;
}

std::string target_help(Format format) {
  std::string text = fmt::format("Options of {} images for -o name=value,...:\n", block::format_name(format));
  for (const TargetOption& option : kOptions)
    if (option.raw || format == Format::Qcow2)
      text += fmt::format("  {:<28} {}\n", fmt::format("{}={}", option.name, option.argument), option.help);
  text.pop_back();
  return text;
}

std::string describe(const Target& target) {
  std::string text = fmt::format("fmt={}", block::format_name(target.format));
  const block::qcow2::CreateOptions& qcow2 = target.qcow2;
  const auto on_off = [](bool on) { return on ? "on" : "off"; };
  if (target.format == Format::Qcow2)
    text += fmt::format(" cluster_size={} extended_l2={} compression_type={}", 1u << qcow2.cluster_bits, on_off(qcow2.extended_l2),
                        qcow2.compression == block::qcow2::Compression::Zstd ? "zstd" : "zlib");
  text += fmt::format(" size={}", target.size.value_or(0));
  if (target.format == Format::Raw) return text;
  if (!qcow2.backing_file.empty()) text += fmt::format(" backing_file={} backing_fmt={}", qcow2.backing_file, qcow2.backing_format);
  if (!qcow2.data_file.empty()) text += fmt::format(" data_file={} data_file_raw={}", qcow2.data_file, on_off(qcow2.raw_data_file));
  if (target.preallocation != Preallocation::Off) text += fmt::format(" preallocation={}", preallocation_name(target.preallocation));
  if (qcow2.version < 3) text += " compat=0.10";
  return text + fmt::format(" lazy_refcounts={} refcount_bits={}", on_off(qcow2.lazy_refcounts), qcow2.refcount_bits);
}

Task<Result<std::unique_ptr<Node>>> make_image(IoContext& context, const std::string& path, const Target& target, block::Cache cache) {
  struct stat found{};
  const bool is_new = stat(path.c_str(), &found) != 0;
  auto file = block::File::create(context, path, {.cache = cache});
  if (!file) co_return std::unexpected(std::move(file).error());
  auto made = co_await fill(context, std::move(*file), target, cache);
  if (!made && is_new) unlink(path.c_str());
  co_return made;
}

}  // namespace lodge::control::image
