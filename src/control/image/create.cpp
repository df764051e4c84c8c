#include "base/size.hpp"
#include "control/image/target.hpp"

namespace lodge::control::image {

namespace {

struct Create {
  std::string format = "raw", backing, backing_format, path, size;
  std::vector<std::string> options;
  bool quiet = false, unsafe = false;

  // The size of the backing file, and its format where that was not said.
  Task<Result<>> look_at_backing(IoContext& context, Target& target) const {
    auto& qcow2 = target.qcow2;
    block::ImageOptions how{.read_only = true};
    if (!qcow2.backing_format.empty()) how.format = *block::parse_format(qcow2.backing_format);
    auto node = co_await open_image(context, block::resolve_name(path, qcow2.backing_file), how);
    if (!node) {
      Error error = std::move(node).error();
      error.message = fmt::format("{}: the backing file: {} (-u makes an image whose backing file is not there yet)", path, error.message);
      co_return std::unexpected(std::move(error));
    }
    if (qcow2.backing_format.empty()) {
      qcow2.backing_format = (*node)->kind();
      if (!quiet)
        warn(fmt::format("{}: is taken for a {} image, and recorded as that (say so with -F {})", qcow2.backing_file, qcow2.backing_format,
                         qcow2.backing_format));
    }
    if (!target.size) target.size = (*node)->size();
    co_return co_await (*node)->close();
  }

  Task<Result<int>> run(IoContext& context) const {
    auto values = parse_named_values(options);
    if (!values) co_return std::unexpected(std::move(values).error());
    if (!backing.empty()) values->push_back({"backing_file", backing});
    if (!backing_format.empty()) values->push_back({"backing_fmt", backing_format});
    auto target = parse_target(format, *values);
    if (!target) co_return std::unexpected(std::move(target).error());
    if (!size.empty()) {
      const auto bytes = parse_bytes(size);
      if (!bytes) co_return std::unexpected(bytes.error());
      target->size = *bytes;
    }
    if (!target->qcow2.backing_file.empty() && !(unsafe && target->size)) CO_TRY(look_at_backing(context, *target));
    if (!target->size) co_return fail(ErrorKind::Usage, "{}: of what size? Give it behind the name, as in '{} 10G'", path, path);
    if (!quiet) say(fmt::format("Formatting '{}', {}", path, describe(*target)));
    CO_TRY_VALUE(made, make_image(context, path, *target, block::Cache::Writeback));
    CO_TRY(made->close());
    co_return 0;
  }
};

}  // namespace

void add_create(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Create>();
  CLI::App* const command = app.add_subcommand("create", "Makes an empty image, or one over a backing file.");
  command->add_option("file", state->path, "the new image")->required();
  command->add_option("size", state->size, "of the guest's disk, such as 10G (default: the backing file's)");
  command->add_option("-f,--format", state->format, "raw or qcow2")->type_name("FORMAT")->capture_default_str();
  command->add_option("-b,--backing", state->backing, "the image that is shown where this one has nothing")->type_name("FILE");
  command->add_option("-F,--backing-format", state->backing_format, "its format")->type_name("FORMAT");
  command->add_flag("-u", state->unsafe, "do not look at the backing file");
  command->add_option("-o,--options", state->options, "name=value,... ('help' lists them)")->allow_extra_args(false);
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
