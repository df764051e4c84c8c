#include "control/image/command.hpp"
#include "control/image/info.hpp"

namespace lodge::control::image {

namespace {

struct SnapshotCommand {
  std::string path, create, apply, remove;
  Source source;
  bool quiet = false, list = false;

  Task<Result<int>> run(IoContext& context) const {
    const bool changes = !create.empty() || !apply.empty() || !remove.empty();
    auto options = source.options(!changes);
    if (!options) co_return std::unexpected(options.error());
    options->backing = false;
    CO_TRY_VALUE(node, open_image(context, path, *options));
    auto image = need_qcow2(*node, "internal snapshots");
    if (!image) co_return std::unexpected(image.error());
    Result<> done;
    if (!create.empty())
      done = co_await (*image)->create_snapshot(create);
    else if (!apply.empty())
      done = co_await (*image)->apply_snapshot(apply);
    else if (!remove.empty())
      done = co_await (*image)->delete_snapshot(remove);
    else if (const std::string table = snapshot_table(**image); !table.empty())
      say(table);
    CO_TRY(close(*node, std::move(done)));
    co_return 0;
  }
};

}  // namespace

void add_snapshot(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<SnapshotCommand>();
  CLI::App* const command = app.add_subcommand("snapshot", "Lists, makes, applies and deletes snapshots inside an image.");
  command->add_option("file", state->path, "the image")->required();
  CLI::Option_group* const what = command->add_option_group("what", "one of them (default: -l)");
  what->add_flag("-l,--list", state->list, "list them");
  what->add_option("-c,--create", state->create, "make one of what the disk holds now")->type_name("NAME");
  what->add_option("-a,--apply", state->apply, "the disk holds again what it held then; what it holds now is lost")->type_name("NAME");
  what->add_option("-d,--delete", state->remove, "forget it")->type_name("NAME");
  what->require_option(0, 1);
  state->source.add_format(*command);
  state->source.add_force_share(*command);
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
