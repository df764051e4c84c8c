#include <algorithm>

#include "control/image/copy.hpp"

namespace lodge::control::image {

namespace {

struct Commit {
  std::string path, base;
  Source source;
  bool quiet = false, percent = false, as_qemu_img = false, keep = false;

  // How far down the chain the image is that is to get the data.
  Task<Result<unsigned>> find_base(IoContext& context, block::ImageOptions options) const {
    options.read_only = true;
    CO_TRY_VALUE(image, open_image(context, path, options));
    unsigned depth = 0;
    Node* below = image->backing();
    if (!below) co_return fail(ErrorKind::Usage, "{}: has no backing file that its data could go to", path);
    for (depth = 1; !base.empty(); ++depth, below = below->backing()) {
      if (!below)
        co_return fail(ErrorKind::Usage, "-b {}: is not in the chain of {}; 'lodge image info --backing-chain' shows it", base, path);
      if (below->name() == base || below->name() == block::resolve_name(path, base)) break;
    }
    CO_TRY(image->close());
    co_return depth;
  }

  Task<Result<int>> run(IoContext& context) const {
    auto options = source.options(false);
    if (!options) co_return std::unexpected(options.error());
    CO_TRY_VALUE(depth, find_base(context, *options));
    options->also_writable = depth;
    CO_TRY_VALUE(image, open_image(context, path, *options));
    auto done = co_await commit(*image, depth);
    CO_TRY(close(*image, std::move(done)));
    if (!quiet) say("Image committed.");
    co_return 0;
  }

  Task<Result<>> commit(Node& image, unsigned depth) const {
    Node* target = &image;
    for (unsigned n = 0; n < depth; ++n) target = target->backing();
    if (target->size() < image.size()) CO_TRY(target->resize(image.size()));
    uint64_t at = 0;
    const NextPiece next = [&]() -> Task<Result<std::optional<Piece>>> {
      while (at < image.size()) {
        CO_TRY_VALUE(extent, image.map(at, image.size() - at));
        const Piece piece{&image, at, extent.length, at, extent.zero};
        at += extent.length;
        if (extent.present && extent.depth < depth) co_return std::optional(piece);
      }
      co_return std::nullopt;
    };
    Progress progress(percent, quiet, as_qemu_img);
    CO_TRY(copy(*target, next, {}, progress, image.size()));
    CO_TRY(flush(*target));
    progress.show(image.size(), image.size());
    // What lies between this image and one further down shows other things now than before: -b leaves all as it is.
    if (keep || !base.empty()) co_return Result<>{};
    co_return co_await as_qcow2(image)->make_empty();
  }
};

}  // namespace

void add_commit(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Commit>();
  state->as_qemu_img = chosen.as_qemu_img;
  CLI::App* const command = app.add_subcommand("commit", "Writes what an image has into its backing file, and empties it.");
  command->add_option("file", state->path, "the image")->required();
  state->source.add_format(*command);
  state->source.add_cache(*command);
  command->add_option("-b,--base", state->base, "into this image further down the chain; those between are of no use any more then")
      ->type_name("FILE");
  command->add_flag("-d,--keep", state->keep, "do not empty the image");
  command->add_flag("-p,--progress", state->percent, "say how far it is in a form for scripts");
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
