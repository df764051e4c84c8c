#include "base/size.hpp"
#include "control/image/target.hpp"

namespace lodge::control::image {

namespace {

struct Resize {
  std::string path, size, preallocation;
  Source source;
  bool quiet = false, shrink = false;

  Task<Result<int>> run(IoContext& context) const {
    const bool relative = size.starts_with('+') || size.starts_with('-');
    const auto number = parse_bytes(relative ? std::string_view(size).substr(1) : std::string_view(size));
    if (!number) co_return std::unexpected(number.error());
    auto options = source.options(false);
    if (!options) co_return std::unexpected(options.error());
    auto how = block::qcow2::Preallocation::Off;
    if (!preallocation.empty()) {
      const auto parsed = parse_target("qcow2", {{"preallocation", preallocation}});
      if (!parsed) co_return fail(ErrorKind::Usage, "--preallocation: {}", parsed.error().message);
      how = parsed->preallocation;
    }
    CO_TRY_VALUE(image, open_image(context, path, *options));
    auto done = co_await resize(*image, relative, *number, how);
    CO_TRY(close(*image, std::move(done)));
    if (!quiet) say("Image resized.");
    co_return 0;
  }

  Task<Result<>> resize(Node& image, bool relative, uint64_t number, block::qcow2::Preallocation how) const {
    const uint64_t old = image.size();
    uint64_t bytes = number;
    if (relative && size[0] == '-') {
      if (number >= old) co_return fail(ErrorKind::Usage, "{}: it has {} bytes, so {} cannot be taken off", path, old, number);
      bytes = old - number;
    } else if (relative) {
      if (number > UINT64_MAX - old) co_return fail(ErrorKind::Usage, "{}: '{}' is too large", path, size);
      bytes = old + number;
    }
    if (bytes <= UINT64_MAX - block::kSector) bytes = (bytes + block::kSector - 1) / block::kSector * block::kSector;
    if (bytes < old && !shrink)
      co_return fail(ErrorKind::Usage,
                     "{}: {} are fewer bytes than its {}, and what lies behind them would be lost. Make the guest's partitions and file "
                     "systems smaller first; then --shrink does it",
                     path, bytes, old);
    if (bytes < old && how != block::qcow2::Preallocation::Off) co_return fail(ErrorKind::Usage, "--preallocation: only for what is added");
    CO_TRY(image.resize(bytes));
    if (bytes <= old || how == block::qcow2::Preallocation::Off) co_return Result<>{};
    if (auto* qcow2 = as_qcow2(image)) {
      if (qcow2->backing()) co_return fail(ErrorKind::Usage, "--preallocation: not for images with a backing file");
      co_return co_await qcow2->preallocate(old, bytes - old, how);
    }
    if (how == block::qcow2::Preallocation::Full) co_return co_await write_zeroes_as_data(image, old, bytes - old);
    if (how == block::qcow2::Preallocation::Falloc) co_return co_await write_zeroes(image, old, bytes - old, false);
    co_return fail(ErrorKind::Usage, "--preallocation=metadata: a raw image has none");
  }
};

}  // namespace

void add_resize(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Resize>();
  CLI::App* const command = app.add_subcommand("resize", "Changes the size of the guest's disk.");
  command->add_option("file", state->path, "the image")->required();
  CLI::Option* const size = command->add_option("size", state->size, "the new size; with + or - before it, so much more or less");
  command->add_flag("--shrink", state->shrink, "make it smaller, although what lies behind the new end is lost");
  command->add_option("--preallocation", state->preallocation, "of what is added: off, metadata, falloc or full")->type_name("MODE");
  state->source.add_format(*command);
  add_quiet(*command, state->quiet);
  command->callback([state, size, &chosen] {
    if (chosen.last_argument) state->size = *chosen.last_argument;
    if (state->size.empty()) throw CLI::RequiredError(size->get_name());
    chosen.run = [state](IoContext& context) { return state->run(context); };
  });
}

}  // namespace lodge::control::image
