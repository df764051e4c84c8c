#include <algorithm>
#include <cstring>

#include "control/image/command.hpp"
#include "control/image/interrupt.hpp"
#include "control/image/progress.hpp"

namespace lodge::control::image {

namespace {

constexpr uint64_t kChunk = 2 << 20;

struct Rebase {
  std::string path, backing, backing_format, backing_cache = "writeback";
  Source source;
  bool quiet = false, percent = false, as_qemu_img = false, unsafe = false;

  Task<Result<int>> run(IoContext& context) const {
    auto options = source.options(false);
    if (!options) co_return std::unexpected(options.error());
    const auto cache = block::parse_cache(backing_cache);
    const auto format = parse_optional_format(backing_format);
    if (!cache) co_return std::unexpected(cache.error());
    if (!format) co_return std::unexpected(format.error());
    options->backing = !unsafe;
    CO_TRY_VALUE(node, open_image(context, path, *options));
    auto image = need_qcow2(*node, "backing file");
    if (!image) co_return std::unexpected(image.error());

    std::unique_ptr<Node> below;
    std::string kind = backing_format;
    if (!backing.empty() && !unsafe) {
      auto opened =
          co_await open_image(context, block::resolve_name(path, backing), {.format = *format, .read_only = true, .cache = *cache});
      if (!opened) {
        Error error = std::move(opened).error();
        error.message = fmt::format("the new backing file: {}", error.message);
        co_return std::unexpected(std::move(error));
      }
      below = std::move(*opened);
      kind = below->kind();
      if (backing_format.empty() && !quiet)
        warn(fmt::format("{}: is taken for a {} image, and recorded as that (say so with -F {})", backing, kind, kind));
    } else if (!backing.empty() && kind.empty()) {
      co_return fail(ErrorKind::Usage, "-u: the new backing file is not looked at, so its format must be given, with -F");
    }
    Result<> done;
    if (!unsafe) done = co_await keep_differences(**image, below.get());
    if (done) done = co_await (*image)->change_backing(backing, kind);
    CO_TRY(close(*node, std::move(done)));
    if (below) CO_TRY(below->close());
    co_return 0;
  }

  // What the image shows of its old backing file and would not see in the new one becomes its own.
  Task<Result<>> keep_differences(block::qcow2::Image& image, Node* below) const {
    Progress progress(percent, quiet, as_qemu_img);
    const uint64_t size = image.size(), cluster = image.limits().optimal, step = std::max(kChunk, cluster);
    std::vector<std::byte> old(step), now(step);
    for (uint64_t at = 0; at < size;) {
      progress.show(at, size);
      if (auto stop = interrupted(); !stop) co_return stop;
      CO_TRY_VALUE(extent, image.map(at, size - at));
      if ((extent.present && extent.depth == 0 && !(extent.zero && at >= backing_size(image))) ||
          (extent.zero && co_await zero_below(below, at, extent.length))) {
        at += extent.length;
        continue;
      }
      const uint64_t length = std::min(extent.length, step - at % step);
      CO_TRY(read(image, at, old.data(), length));
      const uint64_t there = below && at < below->size() ? std::min(length, below->size() - at) : 0;
      if (there) CO_TRY(read(*below, at, now.data(), there));
      std::fill(now.begin() + static_cast<ptrdiff_t>(there), now.begin() + static_cast<ptrdiff_t>(length), std::byte{0});
      for (uint64_t done = 0; done < length;) {
        const uint64_t end = std::min(length, ((at + done) / cluster + 1) * cluster - at);
        if (std::memcmp(&old[done], &now[done], end - done) != 0) {
          if (block::is_zero(&old[done], end - done))
            CO_TRY(write_zeroes(image, at + done, end - done));
          else
            CO_TRY(write(image, at + done, &old[done], end - done));
        }
        done = end;
      }
      at += length;
    }
    progress.show(size, size);
    co_return Result<>{};
  }

  static uint64_t backing_size(const block::qcow2::Image& image) { return image.backing() ? image.backing()->size() : 0; }

  // Whether the new chain has zeros for the whole range, as far as its tables tell.
  static Task<bool> zero_below(Node* below, uint64_t at, uint64_t length) {
    for (const uint64_t end = at + length; below && at < std::min(end, below->size());) {
      const auto extent = co_await below->map(at, std::min(end, below->size()) - at);
      if (!extent || !(extent->zero || (!extent->present && !extent->data))) co_return false;
      at += extent->length;
    }
    co_return true;
  }
};

}  // namespace

void add_rebase(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Rebase>();
  state->as_qemu_img = chosen.as_qemu_img;
  CLI::App* const command = app.add_subcommand("rebase", "Gives an image another backing file, and keeps what the guest sees.");
  command->add_option("file", state->path, "the image")->required();
  command->add_option("-b,--backing", state->backing, "the new backing file; \"\": none, all data comes into the image")
      ->type_name("FILE")
      ->required();
  command->add_option("-F,--backing-format", state->backing_format, "its format")->type_name("FORMAT");
  command->add_flag("-u,--unsafe", state->unsafe, "only change the name in the image: the new one must hold the same as the old one");
  state->source.add_format(*command);
  state->source.add_cache(*command);
  state->source.add_force_share(*command);
  command->add_option("-T,--backing-cache", state->backing_cache, "of the backing files")->type_name("MODE");
  command->add_flag("-p,--progress", state->percent, "say how far it is in a form for scripts");
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
