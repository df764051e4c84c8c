#include "control/image/command.hpp"

#include <array>
#include <cstdio>
#include <utility>

namespace lodge::control::image {

Result<std::optional<block::Format>> parse_optional_format(const std::string& name) {
  if (name.empty()) return std::optional<block::Format>();
  return std::optional(TRY(block::parse_format(name)));
}

Result<block::ImageOptions> Source::options(bool read_only) const {
  return block::ImageOptions{.format = TRY(parse_optional_format(format)),
                             .read_only = read_only,
                             .force_share = force_share,
                             .cache = TRY(block::parse_cache(cache))};
}

void add_quiet(CLI::App& app, bool& quiet) { app.add_flag("-q,--quiet", quiet, "say nothing but errors"); }

void add_output(CLI::App& app, Output& output) {
  app.add_option_function<std::string>(
         "--output",
         [&output](const std::string& name) {
           if (name != "human" && name != "json") throw CLI::ValidationError("--output", "'" + name + "' is neither human nor json");
           output = name == "json" ? Output::Json : Output::Human;
         },
         "human or json")
      ->type_name("KIND");
  app.add_flag_callback("--json", [&output] { output = Output::Json; }, "the same as --output json");
}

Result<std::vector<NamedValue>> parse_named_values(const std::vector<std::string>& lists) {
  std::vector<NamedValue> values;
  for (const std::string& list : lists) {
    std::string now;
    const auto take = [&]() -> Result<> {
      const size_t equals = now.find('=');
      if (equals == 0 || now.empty()) return fail(ErrorKind::Usage, "-o {}: an option without a name; write name=value,...", list);
      // "help", or a switch that is on.
      values.push_back({now.substr(0, equals), equals == std::string::npos ? "on" : now.substr(equals + 1)});
      now.clear();
      return {};
    };
    for (size_t n = 0; n < list.size(); ++n) {
      if (list[n] == ',' && n + 1 < list.size() && list[n + 1] == ',') {
        now += ',';
        ++n;
      } else if (list[n] == ',') {
        TRY(take());
      } else {
        now += list[n];
      }
    }
    TRY(take());
  }
  return values;
}

Result<block::qcow2::Image*> need_qcow2(Node& node, std::string_view what_for) {
  if (auto* image = as_qcow2(node)) return image;
  return fail(ErrorKind::Usage, "{}: a {} image has no {}; 'lodge image convert -O qcow2' makes one that has", node.name(), node.kind(),
              what_for);
}

void say(const std::string& text) { std::puts(text.c_str()); }
void warn(const std::string& text) { fmt::print(stderr, "{}\n", text); }

Task<Result<>> close(Node& node, Result<> before) {
  auto closed = co_await node.close();
  co_return before ? std::move(closed) : std::move(before);
}

}  // namespace lodge::control::image
