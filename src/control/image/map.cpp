#include <nlohmann/json.hpp>

#include "base/size.hpp"
#include "control/image/command.hpp"
#include "control/image/interrupt.hpp"

namespace lodge::control::image {

namespace {

using block::Extent;

struct Map {
  std::string path, start = "0", length;
  Source source;
  Output output = Output::Human;

  // Neighbours that say the same are one line.
  struct Line {
    uint64_t start;
    Extent extent;
    [[nodiscard]] bool goes_on_with(uint64_t at, const Extent& next) const {
      return start + extent.length == at && extent.present == next.present && extent.zero == next.zero && extent.data == next.data &&
             extent.compressed == next.compressed && extent.depth == next.depth && extent.offset.has_value() == next.offset.has_value() &&
             (!extent.offset || *extent.offset + extent.length == *next.offset);
    }
  };

  // The file that has the bytes of an extent.
  static std::string file_of(Node& image, unsigned depth) {
    Node* node = &image;
    for (; depth && node->backing(); --depth) node = node->backing();
    if (const auto* qcow2 = as_qcow2(*node); qcow2 && qcow2->data_file()) return qcow2->data_file()->name();
    return node->name();
  }

  void print(Node& image, const Line& line, bool first) const {
    const Extent& extent = line.extent;
    if (output == Output::Human) {
      if (extent.data && !extent.zero && extent.offset)
        say(fmt::format("{:<#16x}{:<#16x}{:<#16x}{}", line.start, extent.length, *extent.offset, file_of(image, extent.depth)));
      return;
    }
    nlohmann::ordered_json json{
        {"start", line.start}, {"length", extent.length}, {"depth", extent.depth},          {"present", extent.present},
        {"zero", extent.zero}, {"data", extent.data},     {"compressed", extent.compressed}};
    if (extent.offset) json["offset"] = *extent.offset;
    std::string text = json.dump(-1);
    fmt::print("{}{}", first ? "[" : ",\n", text);
  }

  Task<Result<int>> run(IoContext& context) const {
    const auto begin = parse_bytes(start);
    if (!begin) co_return fail(ErrorKind::Usage, "--start-offset: {}", begin.error().message);
    auto options = source.options(true);
    if (!options) co_return std::unexpected(options.error());
    CO_TRY_VALUE(image, open_image(context, path, *options));
    uint64_t end = image->size();
    if (!length.empty()) {
      const auto most = parse_bytes(length);
      if (!most) co_return fail(ErrorKind::Usage, "--max-length: {}", most.error().message);
      if (*begin < end) end = std::min(end - *begin, *most) + *begin;
    }
    if (output == Output::Human) say(fmt::format("{:<16}{:<16}{:<16}{}", "Offset", "Length", "Mapped to", "File"));
    std::optional<Line> line;
    bool first = true, compressed = false;
    for (uint64_t at = *begin; at < end;) {
      CO_TRY_VALUE(extent, image->map(at, end - at));
      compressed |= extent.compressed;
      if (line && line->goes_on_with(at, extent)) {
        line->extent.length += extent.length;
      } else {
        if (line) print(*image, *line, std::exchange(first, false));
        line = Line{at, extent};
      }
      at += extent.length;
      if (auto stop = interrupted(); !stop) co_return std::unexpected(stop.error());
    }
    if (line) print(*image, *line, std::exchange(first, false));
    if (output == Output::Json) say(first ? "[]" : "]");
    CO_TRY(image->close());
    if (compressed && output == Output::Human) warn("Compressed clusters have no place that could be shown; --json lists them.");
    co_return 0;
  }
};

}  // namespace

void add_map(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Map>();
  CLI::App* const command = app.add_subcommand("map", "Tells where the bytes of the guest's disk lie.");
  command->add_option("file", state->path, "the image")->required();
  command->add_option("-s,--start-offset", state->start, "where to begin")->type_name("OFFSET");
  command->add_option("-l,--max-length", state->length, "how far to go")->type_name("LENGTH");
  state->source.add_format(*command);
  state->source.add_force_share(*command);
  add_output(*command, state->output);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
