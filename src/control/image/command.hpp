// What the commands of 'lodge image' have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/open.hpp"
#include "block/qcow2/image.hpp"

namespace lodge::control::image {

using block::IoContext;
using block::Node;
using block::Task;

// The command that the arguments asked for; its result is the exit code.
struct Chosen {
  std::function<Task<Result<int>>(IoContext&)> run;
  int error_code = 2;  // of an error that is the user's or the image's
  bool as_qemu_img = false;
  std::optional<std::string> last_argument;  // of 'resize': what would look like an option
};

// Options that tell how an image is opened. A command adds those that it has.
struct Source {
  std::string format, cache = "writeback";
  bool force_share = false;

  void add_format(CLI::App& app) { app.add_option("-f,--format", format, "its format (otherwise by looking)")->type_name("FORMAT"); }
  void add_cache(CLI::App& app, const char* names = "-t,--cache") {
    app.add_option(names, cache, "writeback, writethrough, none, directsync or unsafe")->type_name("MODE");
  }
  void add_force_share(CLI::App& app) { app.add_flag("-U,--force-share", force_share, "look at it although another process writes it"); }
  [[nodiscard]] Result<block::ImageOptions> options(bool read_only) const;
};

Result<std::optional<block::Format>> parse_optional_format(const std::string& name);

// What nearly all have.
void add_quiet(CLI::App& app, bool& quiet);
enum class Output { Human, Json };
void add_output(CLI::App& app, Output& output);

// "a=1,b=2", as -o has it; a comma in a value is written twice. Several -o go together.
struct NamedValue {
  std::string name, value;
};
Result<std::vector<NamedValue>> parse_named_values(const std::vector<std::string>& lists);

// Null if the node is no qcow2 image.
[[nodiscard]] inline block::qcow2::Image* as_qcow2(Node& node) { return dynamic_cast<block::qcow2::Image*>(&node); }
// The same as an error of the user.
Result<block::qcow2::Image*> need_qcow2(Node& node, std::string_view what_for);

void say(const std::string& text);   // to the standard output, with a line's end
void warn(const std::string& text);  // to the standard error
// Closes the image; an error of the command before goes first.
Task<Result<>> close(Node& node, Result<> before);

// In their own files.
void add_bench(CLI::App& app, Chosen& chosen);
void add_check(CLI::App& app, Chosen& chosen);
void add_commit(CLI::App& app, Chosen& chosen);
void add_compare(CLI::App& app, Chosen& chosen);
void add_convert(CLI::App& app, Chosen& chosen);
void add_create(CLI::App& app, Chosen& chosen);
void add_info(CLI::App& app, Chosen& chosen);
void add_map(CLI::App& app, Chosen& chosen);
void add_rebase(CLI::App& app, Chosen& chosen);
void add_resize(CLI::App& app, Chosen& chosen);
void add_snapshot(CLI::App& app, Chosen& chosen);

}  // namespace lodge::control::image
