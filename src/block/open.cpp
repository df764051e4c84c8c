#include "block/open.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <vector>

#include "block/nbd.hpp"
#include "block/qcow2/image.hpp"
#include "block/raw.hpp"

namespace lodge::block {

namespace {

constexpr size_t kDeepest = 200;  // images of a chain

// A protocol by the beginning of the name, as in "nbd:" or "json:{...}"; empty: a path. "./a:b" is a path.
std::string_view scheme_of(std::string_view name) {
  const size_t colon = name.find_first_of(":/");
  if (colon == std::string_view::npos || name[colon] != ':' || colon == 0) return {};
  return name.substr(0, colon);
}

bool exists(const std::string& path) {
  struct stat found{};
  return stat(path.c_str(), &found) == 0;
}

class Opener {
 public:
  Opener(IoContext& context, ImageOptions options) : context_(context), options_(std::move(options)) {}

  Task<Result<std::unique_ptr<Node>>> open(std::string name, std::optional<Format> format, bool writable) {
    FileOptions file_options{.read_only = !writable, .cache = options_.cache, .discard = options_.discard};
    if (options_.force_share) file_options.sharing = Sharing::ForceShare;
    if (auto again = come_by(name); !again) co_return std::unexpected(std::move(again).error());
    CO_TRY_VALUE(protocol, open_protocol(context_, name, file_options));

    std::array<std::byte, kSector> sector{};
    const uint64_t there = std::min(kSector, protocol->size());
    if (there) CO_TRY(read(*protocol, 0, sector.data(), there));
    const std::string_view looks = recognise(std::span(sector).first(there));
    const bool guessed = !format;
    if (guessed) {
      if (!looks.empty() && looks != "qcow2")
        co_return fail(ErrorKind::Unsupported,
                       "{}: looks like a {} image, which Lodge cannot read yet; convert it, or give format=raw if it is none", name, looks);
      format = looks.empty() ? Format::Raw : Format::Qcow2;
    }
    if (*format == Format::Raw) co_return std::unique_ptr<Node>(std::make_unique<Raw>(std::move(protocol), guessed));
    if (looks != "qcow2")
      co_return fail(ErrorKind::Usage, "{}: is not a qcow2 image ({}); give its format, or leave the format out to have it looked at", name,
                     looks.empty() ? std::string("it looks like a raw one") : fmt::format("it looks like a {} one", looks));
    co_return co_await open_qcow2(std::move(protocol), std::move(name), writable);
  }

 private:
  // A file of the chain that was there before: the chain would never end. Looked for before it is opened, or its own lock is in the way.
  Result<> come_by(const std::string& name) {
    if (++depth_ > kDeepest) return fail(ErrorKind::Usage, "{}: the chain of backing files has more than {} images", name, kDeepest);
    struct stat found{};
    const std::string path = path_of(name);
    if (path.empty() || stat(path.c_str(), &found) != 0) return {};
    const std::pair<uint64_t, uint64_t> identity(found.st_dev, found.st_ino);
    if (std::ranges::find(seen_, identity) != seen_.end())
      return fail(ErrorKind::Usage,
                  "{}: the chain of backing files comes back to this image; give one of them another backing file with "
                  "'lodge image rebase -u'",
                  name);
    seen_.push_back(identity);
    return {};
  }

  Task<Result<std::unique_ptr<Node>>> open_qcow2(std::unique_ptr<Node> protocol, std::string name, bool writable) {
    const qcow2::OpenOptions image_options{.read_only = !writable, .check = options_.check, .metadata_bytes = options_.metadata_bytes};
    CO_TRY_VALUE(image, qcow2::Image::open(context_, std::move(protocol), image_options));
    if (const std::string wanted = image->header().data_file(); image->header().has_data_file()) {
      if (wanted.empty()) co_return fail(ErrorKind::Usage, "{}: its data is in another file, and it does not say in which", name);
      FileOptions file_options{.read_only = !writable, .cache = options_.cache, .discard = options_.discard};
      if (options_.force_share) file_options.sharing = Sharing::ForceShare;
      auto data = co_await open_protocol(context_, resolve_name(name, wanted), file_options);
      if (!data) co_return below(name, "data file", std::move(data).error());
      image->set_data_file(std::move(*data));
    }
    const bool top = depth_ == 1;
    const std::string backing = top && options_.backing_file ? *options_.backing_file : image->header().backing_file;
    if (!options_.backing || backing.empty()) co_return std::unique_ptr<Node>(std::move(image));
    std::optional<Format> format = top ? options_.backing_format : std::nullopt;
    if (const std::string recorded = image->header().backing_format(); !recorded.empty() && !(top && options_.backing_file)) {
      auto parsed = parse_format(recorded);
      if (!parsed) co_return below(name, "backing file", std::move(parsed).error());
      format = *parsed;
    }
    const std::string resolved = top && options_.backing_file ? backing : resolve_name(name, backing);
    auto opened = co_await open(resolved, format, depth_ == options_.also_writable);
    if (!opened) co_return below(name, "backing file", std::move(opened).error());
    image->set_backing(std::move(*opened));
    co_return std::unique_ptr<Node>(std::move(image));
  }

  static std::unexpected<Error> below(const std::string& name, std::string_view what, Error error) {
    error.message = fmt::format("{}: its {}: {}", name, what, error.message);
    return std::unexpected(std::move(error));
  }

  IoContext& context_;
  const ImageOptions options_;
  std::vector<std::pair<uint64_t, uint64_t>> seen_;
  size_t depth_ = 0;
};

Task<Result<std::unique_ptr<Node>>> temporary_overlay(IoContext& context, std::unique_ptr<Node> base, const ImageOptions& options) {
  auto file = File::temporary(context, {.cache = Cache::Unsafe, .discard = options.discard});
  if (!file) co_return std::unexpected(std::move(file).error());
  qcow2::CreateOptions made{.size = base->size()};
  CO_TRY(qcow2::create(**file, made));
  CO_TRY_VALUE(overlay, qcow2::Image::open(context, std::move(*file), {.metadata_bytes = options.metadata_bytes}));
  overlay->set_backing(std::move(base));
  co_return std::unique_ptr<Node>(std::move(overlay));
}

}  // namespace

std::string path_of(const std::string& name) {
  if (name.starts_with("file:")) return name.substr(5);
  return scheme_of(name).empty() || (!Nbd::is_name(name) && exists(name)) ? name : std::string();
}

std::string resolve_name(const std::string& image, const std::string& name) {
  if (name.starts_with('/') || !scheme_of(name).empty()) return name;
  const std::string path = path_of(image);
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? name : path.substr(0, slash + 1) + name;
}

Task<Result<std::unique_ptr<Node>>> open_protocol(IoContext& context, std::string name, const FileOptions& options) {
  if (name.empty()) co_return fail(ErrorKind::Usage, "an image's name is empty");
  if (Nbd::is_name(name)) {
    CO_TRY_VALUE(nbd, Nbd::open(context, std::move(name), options));
    co_return std::unique_ptr<Node>(std::move(nbd));
  }
  const std::string path = path_of(name);
  if (path.empty())
    co_return fail(ErrorKind::Usage, "{}: there is no such file, and no protocol '{}': Lodge has files, devices and nbd://", name,
                   scheme_of(name));
  auto file = File::open(context, path, options);
  if (!file) co_return std::unexpected(std::move(file).error());
  co_return std::unique_ptr<Node>(std::move(*file));
}

Task<Result<std::unique_ptr<Node>>> open_image(IoContext& context, std::string name, ImageOptions options) {
  Opener opener(context, options);
  const bool writable = !options.read_only && !options.snapshot;
  CO_TRY_VALUE(node, opener.open(std::move(name), options.format, writable));
  if (!options.snapshot) co_return std::move(node);
  co_return co_await temporary_overlay(context, std::move(node), options);
}

}  // namespace lodge::block
