#include "control/image/info.hpp"

#include <ctime>

#include "base/size.hpp"
#include "control/image/command.hpp"

namespace lodge::control::image {

namespace {

using Json = nlohmann::ordered_json;
using block::qcow2::Header;
using block::qcow2::Snapshot;

constexpr uint64_t kSecond = 1'000'000'000;

std::string compression_name(const Header& header) { return header.compression == block::qcow2::Compression::Zstd ? "zstd" : "zlib"; }

// The facts of the format, as (name in texts, name in JSON, value).
struct Fact {
  std::string_view text, json;
  Json value;
};
std::vector<Fact> facts(const Header& header) {
  namespace incompatible = block::qcow2::incompatible;
  std::vector<Fact> list{{"compat", "compat", header.version < 3 ? "0.10" : "1.1"},
                         {"compression type", "compression-type", compression_name(header)}};
  if (header.version >= 3) {
    list.push_back({"lazy refcounts", "lazy-refcounts", (header.compatible & block::qcow2::compatible::kLazyRefcounts) != 0});
    list.push_back({"refcount bits", "refcount-bits", header.refcount_bits()});
    list.push_back({"corrupt", "corrupt", (header.incompatible & incompatible::kCorrupt) != 0});
    if (header.has_data_file()) {
      list.push_back({"data file", "data-file", header.data_file()});
      list.push_back({"data file raw", "data-file-raw", (header.autoclear & block::qcow2::autoclear::kRawDataFile) != 0});
    }
    list.push_back({"extended l2", "extended-l2", header.extended_l2()});
  } else {
    list.push_back({"refcount bits", "refcount-bits", header.refcount_bits()});
  }
  return list;
}

Json snapshot_json(const Snapshot& snapshot) {
  Json json;
  if (snapshot.instructions != UINT64_MAX) json["icount"] = snapshot.instructions;
  json["vm-clock-nsec"] = snapshot.clock_ns % kSecond;
  json["name"] = snapshot.name;
  json["date-sec"] = snapshot.seconds;
  json["date-nsec"] = snapshot.nanoseconds;
  json["vm-clock-sec"] = snapshot.clock_ns / kSecond;
  json["id"] = snapshot.id;
  json["vm-state-size"] = snapshot.state_bytes;
  return json;
}

}  // namespace

Json info_json(Node& image) {
  Json json;
  const auto* qcow2 = as_qcow2(image);
  if (qcow2 && !qcow2->snapshots().empty()) {
    json["snapshots"] = Json::array();
    for (const Snapshot& snapshot : qcow2->snapshots()) json["snapshots"].push_back(snapshot_json(snapshot));
  }
  json["virtual-size"] = image.size();
  json["filename"] = image.name();
  if (qcow2) json["cluster-size"] = qcow2->header().cluster_size();
  json["format"] = image.kind();
  if (const auto allocated = image.allocated_size()) json["actual-size"] = *allocated;
  if (!qcow2) {
    json["dirty-flag"] = false;
    return json;
  }
  const Header& header = qcow2->header();
  Json data;
  for (const Fact& fact : facts(header)) data[fact.json] = fact.value;
  json["format-specific"] = {{"type", "qcow2"}, {"data", data}};
  if (!header.backing_file.empty()) {
    json["full-backing-filename"] = block::resolve_name(image.name(), header.backing_file);
    json["backing-filename"] = header.backing_file;
    if (const std::string format = header.backing_format(); !format.empty()) json["backing-filename-format"] = format;
  }
  json["dirty-flag"] = (header.incompatible & block::qcow2::incompatible::kDirty) != 0;
  return json;
}

std::string snapshot_table(const block::qcow2::Image& image) {
  if (image.snapshots().empty()) return {};
  std::string text =
      fmt::format("Snapshot list:\n{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const Snapshot& snapshot : image.snapshots()) {
    const time_t seconds = snapshot.seconds;
    tm local{};
    localtime_r(&seconds, &local);
    char date[32];
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &local);
    const uint64_t clock = snapshot.clock_ns / 1'000'000;
    const std::string clock_text =
        fmt::format("{:02}:{:02}:{:02}.{:03}", clock / 3'600'000, clock / 60'000 % 60, clock / 1000 % 60, clock % 1000);
    text += fmt::format("\n{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}", snapshot.id, snapshot.name, format_bytes(snapshot.state_bytes), date,
                        clock_text, snapshot.instructions == UINT64_MAX ? "" : std::to_string(snapshot.instructions));
  }
  return text;
}

std::string info_text(Node& image) {
  std::string text = fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\n", image.name(), image.kind(),
                                 format_bytes(image.size()), image.size());
  const auto allocated = image.allocated_size();
  text += fmt::format("disk size: {}", allocated ? format_bytes(*allocated) : "not known");
  const auto* qcow2 = as_qcow2(image);
  if (!qcow2) return text;
  const Header& header = qcow2->header();
  if (header.incompatible & block::qcow2::incompatible::kDirty) text += "\ncleanly shut down: no";
  text += fmt::format("\ncluster_size: {}", header.cluster_size());
  if (!header.backing_file.empty()) {
    text += fmt::format("\nbacking file: {}", header.backing_file);
    if (const std::string resolved = block::resolve_name(image.name(), header.backing_file); resolved != header.backing_file)
      text += fmt::format(" (actual path: {})", resolved);
    if (const std::string format = header.backing_format(); !format.empty()) text += fmt::format("\nbacking file format: {}", format);
  }
  if (const std::string table = snapshot_table(*qcow2); !table.empty()) text += "\n" + table;
  text += "\nFormat specific information:";
  for (const Fact& fact : facts(header)) {
    const std::string value = fact.value.is_string() ? fact.value.get<std::string>() : fact.value.dump();
    text += fmt::format("\n    {}: {}", fact.text, value);
  }
  return text;
}

namespace {

struct Info {
  std::string path;
  Source source;
  Output output = Output::Human;
  bool chain = false;

  Task<Result<int>> run(IoContext& context) const {
    auto options = source.options(true);
    if (!options) co_return std::unexpected(options.error());
    options->backing = chain;
    options->check = true;
    CO_TRY_VALUE(image, open_image(context, path, *options));
    Json list = Json::array();
    bool first = true;
    for (Node* node = image.get(); node; node = node->backing()) {
      if (output == Output::Json)
        list.push_back(info_json(*node));
      else
        say((first ? "" : "\n") + info_text(*node));
      first = false;
    }
    if (output == Output::Json) say(chain ? list.dump(4) : list[0].dump(4));
    CO_TRY(image->close());
    co_return 0;
  }
};

}  // namespace

void add_info(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Info>();
  CLI::App* const command = app.add_subcommand("info", "Tells what an image is.");
  command->add_option("file", state->path, "the image")->required();
  state->source.add_format(*command);
  state->source.add_force_share(*command);
  add_output(*command, state->output);
  command->add_flag("--backing-chain", state->chain, "all images of the chain");
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
