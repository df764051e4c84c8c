#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/size.hpp"
#include "block/raw.hpp"
#include "control/image/copy.hpp"
#include "control/image/interrupt.hpp"
#include "control/image/target.hpp"

namespace lodge::control::image {

namespace {

constexpr uint64_t kMostParallel = 64;

// A file that has its name once it is whole: it is written beside it under another one.
class NewFile {
 public:
  explicit NewFile(std::string path) : path_(std::move(path)), written_(path_) {
    struct stat found{};
    if (lstat(path_.c_str(), &found) == 0 && S_ISLNK(found.st_mode)) {  // what the link leads to is replaced, not the link
      if (char* const real = realpath(path_.c_str(), nullptr)) {
        path_ = real;
        std::free(real);
      }
    }
    const bool there = stat(path_.c_str(), &found) == 0;
    if (there && !S_ISREG(found.st_mode)) return;  // a device is written where it is
    if (there) mode_ = found.st_mode & 07777;
    const size_t slash = path_.rfind('/') + 1;  // 0 without one
    written_ = fmt::format("{}.{}.incomplete-{}", path_.substr(0, slash), path_.substr(slash), getpid());
    beside_ = true;
  }
  ~NewFile() {
    if (beside_) unlink(written_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  [[nodiscard]] const std::string& written() const { return written_; }
  // The error with the name that the user gave instead.
  [[nodiscard]] std::unexpected<Error> failure(Error error) const {
    if (const size_t at = error.message.find(written_); beside_ && at != std::string::npos) error.message.replace(at, written_.size(), path_);
    return std::unexpected(std::move(error));
  }
  // An old file of the name that is in use must not be replaced.
  [[nodiscard]] Result<> check_old(IoContext& context) const {
    if (!beside_ || access(path_.c_str(), F_OK) != 0) return {};
    TRY(block::File::open(context, path_, {}));
    return {};
  }
  [[nodiscard]] Result<> finish() {
    if (!beside_) return {};
    if (mode_ && chmod(written_.c_str(), *mode_) != 0) return os_fail(fmt::format("{}: cannot set its mode", written_));
    if (rename(written_.c_str(), path_.c_str()) != 0) return os_fail(fmt::format("{}: cannot get its name", path_));
    beside_ = false;
    return {};
  }

 private:
  std::string path_, written_;
  std::optional<mode_t> mode_;
  bool beside_ = false;
};

struct Convert {
  std::vector<std::string> paths;
  Source source;
  std::string target_format = "raw", target_cache = "unsafe", backing, backing_format, snapshot, sparse = "4k";
  std::vector<std::string> options;
  unsigned parallel = 8;
  bool quiet = false, percent = false, as_qemu_img = false;
  bool into_existing = false, compressed = false, out_of_order = false, salvage = false, target_is_zero = false;

  // The snapshot's name in -l NAME, -l snapshot.name=NAME or -l snapshot.id=ID.
  [[nodiscard]] std::string snapshot_name() const {
    for (const std::string_view prefix : {"snapshot.name=", "snapshot.id="})
      if (snapshot.starts_with(prefix)) return snapshot.substr(prefix.size());
    return snapshot;
  }

  Task<Result<std::vector<std::unique_ptr<Node>>>> open_sources(IoContext& context) const {
    auto how = source.options(true);
    if (!how) co_return std::unexpected(how.error());
    std::vector<std::unique_ptr<Node>> sources;
    for (size_t n = 0; n + 1 < paths.size(); ++n) {
      CO_TRY_VALUE(node, open_image(context, paths[n], *how));
      if (!snapshot.empty()) {
        auto image = need_qcow2(*node, "internal snapshots");
        if (!image) co_return std::unexpected(image.error());
        CO_TRY((*image)->show_snapshot(snapshot_name()));
      }
      sources.push_back(std::move(node));
    }
    co_return std::move(sources);
  }

  Result<Target> target(uint64_t size) const {
    auto values = TRY(parse_named_values(options));
    if (!backing.empty()) values.push_back({"backing_file", backing});
    if (!backing_format.empty()) values.push_back({"backing_fmt", backing_format});
    Target made = TRY(parse_target(target_format, values));
    if (made.size && *made.size < size)
      return fail(ErrorKind::Usage, "-o size={}: the source has {} bytes, which would not fit", *made.size, size);
    if (!made.size) made.size = size;
    if (compressed && made.format == block::Format::Raw) return fail(ErrorKind::Usage, "-c: raw images have no compression; take -O qcow2");
    if (compressed && !made.qcow2.data_file.empty()) return fail(ErrorKind::Usage, "-c: not with an external data file");
    if (compressed && made.preallocation != block::qcow2::Preallocation::Off) return fail(ErrorKind::Usage, "-c: not with preallocation");
    if (!made.qcow2.backing_file.empty() && made.qcow2.backing_format.empty())
      return fail(ErrorKind::Usage, "-B {}: of which format is it? Say so with -F", made.qcow2.backing_file);
    return made;
  }

  Task<Result<int>> run(IoContext& context) const {
    if (paths.size() < 2) co_return fail(ErrorKind::Usage, "convert needs a source and a destination");
    auto how_sparse = parse_bytes(sparse);
    if (!how_sparse) co_return fail(ErrorKind::Usage, "-S: {}", how_sparse.error().message);
    if (*how_sparse && (*how_sparse % block::kSector || *how_sparse > (2u << 20)))
      co_return fail(ErrorKind::Usage, "-S {}: a multiple of 512, at most 2M, or 0 to write zeros, too", sparse);
    if (parallel < 1 || parallel > kMostParallel) co_return fail(ErrorKind::Usage, "-m {}: 1 to {}", parallel, kMostParallel);
    if (target_is_zero && !into_existing) co_return fail(ErrorKind::Usage, "--target-is-zero: only with -n");
    const auto cache = block::parse_cache(target_cache);
    if (!cache) co_return std::unexpected(cache.error());
    CO_TRY_VALUE(sources, open_sources(context));
    uint64_t size = 0;
    for (const auto& one : sources) size += one->size();
    if (into_existing) {
      if (!options.empty() || !backing.empty()) co_return fail(ErrorKind::Usage, "-n: -o and -B are of an image that is made");
      const auto format = parse_optional_format(target_format);
      if (!format) co_return std::unexpected(format.error());
      CO_TRY_VALUE(existing, open_image(context, paths.back(), {.format = *format, .cache = *cache}));
      if (existing->size() < size)
        co_return fail(ErrorKind::Usage, "{}: has {} bytes, and the source has {}", paths.back(), existing->size(), size);
      auto done = co_await fill(sources, *existing, *how_sparse, target_is_zero, size);
      CO_TRY(close(*existing, std::move(done)));
      co_return 0;
    }
    auto what = target(size);
    if (!what) co_return std::unexpected(what.error());
    NewFile file(paths.back());
    if (auto free = file.check_old(context); !free) co_return std::unexpected(std::move(free).error());
    Target resolved = *what;  // names in it are of the image's folder, where it is written too
    auto image = co_await make_image(context, file.written(), resolved, *cache);
    if (!image) co_return file.failure(std::move(image).error());
    std::unique_ptr<Node> made = std::move(*image);
    if (!what->qcow2.backing_file.empty() && made->size()) CO_TRY(set_backing(context, *made, *what));
    const bool zero = what->preallocation == block::qcow2::Preallocation::Off && !(made->file() && is_device(*made->file()));
    auto done = co_await fill(sources, *made, *how_sparse, zero && what->qcow2.backing_file.empty(), size);
    auto closed = co_await close(*made, std::move(done));
    if (!closed) co_return file.failure(std::move(closed).error());
    made.reset();
    if (auto finished = file.finish(); !finished) co_return std::unexpected(std::move(finished).error());
    co_return 0;
  }

  static bool is_device(const Node& protocol) { return protocol.kind() != "file"; }

  Task<Result<>> set_backing(IoContext& context, Node& made, const Target& target) const {
    block::ImageOptions how{.read_only = true};
    how.format = *block::parse_format(target.qcow2.backing_format);
    CO_TRY_VALUE(below, open_image(context, block::resolve_name(paths.back(), target.qcow2.backing_file), how));
    as_qcow2(made)->set_backing(std::move(below));
    co_return Result<>{};
  }

  Task<Result<>> fill(const std::vector<std::unique_ptr<Node>>& sources, Node& made, uint64_t how_sparse, bool zero, uint64_t size) const {
    // With a backing file of the target's, what the source's own backing file has is there already.
    const bool over_backing = made.backing() != nullptr;
    size_t index = 0;
    uint64_t at = 0, before = 0;
    const NextPiece next = [&]() -> Task<Result<std::optional<Piece>>> {
      for (;;) {
        while (index < sources.size() && at >= sources[index]->size()) {
          before += sources[index++]->size();
          at = 0;
        }
        if (index == sources.size()) co_return std::nullopt;
        Node& from = *sources[index];
        CO_TRY_VALUE(extent, from.map(at, from.size() - at));
        const Piece piece{&from, at, extent.length, before + at, extent.zero || (!extent.present && !extent.data)};
        at += extent.length;
        if (over_backing && (extent.depth > 0 || !extent.present)) continue;
        co_return std::optional(piece);
      }
    };
    CopyOptions how{.parallel = parallel,
                    .in_order = !out_of_order,
                    .compressed = compressed,
                    .sparse = how_sparse,
                    .target_is_zero = zero,
                    .salvage = salvage};
    Progress progress(percent, quiet, as_qemu_img);
    CO_TRY(copy(made, next, how, progress, size));
    progress.show(size, size);
    co_return Result<>{};
  }
};

}  // namespace

void add_convert(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Convert>();
  state->as_qemu_img = chosen.as_qemu_img;
  CLI::App* const command = app.add_subcommand("convert",
                                               "Copies an image into a new one, of the same or another format. The new one has its "
                                               "name when it is whole.");
  command->add_option("files", state->paths, "the source (several: one behind the other), and the destination")->required()->expected(-2);
  state->source.add_format(*command);
  state->source.add_cache(*command, "-T,--source-cache");
  state->source.add_force_share(*command);
  command->add_option("-O,--target-format", state->target_format, "raw or qcow2")->type_name("FORMAT")->capture_default_str();
  command->add_option("-t,--cache", state->target_cache, "of the destination")->type_name("MODE")->capture_default_str();
  command->add_option("-o,--options", state->options, "of the destination: name=value,... ('help' lists them)")->allow_extra_args(false);
  command->add_option("-B,--backing", state->backing, "the destination's backing file; what the source's own has is not copied")
      ->type_name("FILE");
  command->add_option("-F,--backing-format", state->backing_format, "its format")->type_name("FORMAT");
  command->add_option("-l,--snapshot", state->snapshot, "as an internal snapshot of the source has it")->type_name("NAME");
  command->add_option("-S,--sparse", state->sparse, "so many zero bytes become a hole")->type_name("SIZE")->capture_default_str();
  command->add_option("-m,--parallel", state->parallel, "pieces that are copied at once")->type_name("NUMBER")->capture_default_str();
  command->add_flag("-c,--compress", state->compressed, "compress it (qcow2)");
  command->add_flag("-W,--out-of-order", state->out_of_order, "write pieces as they come");
  command->add_flag("-n,--existing", state->into_existing, "write into an image that is there, which must be large enough");
  command->add_flag("--target-is-zero", state->target_is_zero, "with -n: it reads as zeros, which need not be written");
  command->add_flag("--salvage", state->salvage, "go on where the source cannot be read, with zeros");
  command->add_flag("-p,--progress", state->percent, "say how far it is in a form for scripts");
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
