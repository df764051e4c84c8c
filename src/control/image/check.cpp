#include <nlohmann/json.hpp>

#include "control/image/command.hpp"
#include "control/image/interrupt.hpp"
#include "control/image/progress.hpp"

namespace lodge::control::image {

namespace {

using block::qcow2::Image;

// qemu-img's exit codes.
constexpr int kGood = 0, kNotDone = 1, kDamaged = 2, kLeaks = 3, kNothingToCheck = 63;

struct Check {
  std::string path, repair_what;
  Source source;
  Output output = Output::Human;
  bool quiet = false, percent = false, as_qemu_img = false;

  std::string json(const Image::Findings& found) const {
    nlohmann::ordered_json json;
    json["image-end-offset"] = found.end_offset;
    json["total-clusters"] = found.total;
    json["check-errors"] = found.check_errors;
    const auto if_any = [&](const char* name, uint64_t count) {
      if (count) json[name] = count;
    };
    if_any("corruptions", found.corruptions);
    if_any("corruptions-fixed", found.corruptions_fixed);
    if_any("leaks", found.leaks);
    if_any("leaks-fixed", found.leaks_fixed);
    if_any("allocated-clusters", found.allocated);
    json["filename"] = path;
    json["format"] = "qcow2";
    if_any("fragmented-clusters", found.fragmented);
    if_any("compressed-clusters", found.compressed);
    return json.dump(4);
  }

  static std::string text(const Image::Findings& found) {
    std::string text;
    if (!found.corruptions && !found.leaks && !found.check_errors) text += "No errors were found on the image.\n";
    if (found.corruptions)
      text += fmt::format("\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n",
                          found.corruptions);
    if (found.leaks)
      text +=
          fmt::format("\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n", found.leaks);
    if (found.total && found.allocated) {
      const auto percent = [](uint64_t part, uint64_t of) { return 100 * static_cast<double>(part) / static_cast<double>(of); };
      text += fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n", found.allocated, found.total,
                          percent(found.allocated, found.total), percent(found.fragmented, found.allocated),
                          percent(found.compressed, found.allocated));
    }
    return text + fmt::format("Image end offset: {}", found.end_offset);
  }

  Task<Result<int>> run(IoContext& context) const {
    auto result = co_await checked(context);
    // For scripts: 1 is what could not be looked at, whatever the cause; other codes say what was found.
    if (!result && result.error().kind != ErrorKind::Interrupted && !as_qemu_img) {
      warn(fmt::format("lodge: {}", result.error().message));
      co_return kNotDone;
    }
    co_return result;
  }

  Task<Result<int>> checked(IoContext& context) const {
    Image::Repair repair = Image::Repair::None;
    if (repair_what == "leaks") {
      repair = Image::Repair::Leaks;
    } else if (repair_what == "all") {
      repair = Image::Repair::All;
    } else if (!repair_what.empty()) {
      co_return fail(ErrorKind::Usage, "-r {}: neither leaks nor all", repair_what);
    }
    auto options = source.options(repair == Image::Repair::None);
    if (!options) co_return std::unexpected(options.error());
    options->backing = false;
    options->check = true;
    CO_TRY_VALUE(node, open_image(context, path, *options));
    Image* const image = as_qcow2(*node);
    if (!image) {
      if (!quiet) warn(fmt::format("{}: a {} image has nothing to check", path, node->kind()));
      co_return kNothingToCheck;
    }
    Progress progress(percent, quiet, as_qemu_img);
    const auto show = [&](double part) { progress.show(static_cast<uint64_t>(part * 1000), 1000, false); };
    CO_TRY_VALUE(found, image->check(repair, show));
    Image::Findings left = found;
    if (found.leaks_fixed || found.corruptions_fixed) {
      if (!quiet && output == Output::Human) {
        print_lines(found);
        say(
            fmt::format("The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\nDouble "
                        "checking the fixed image now...",
                        found.leaks_fixed, found.corruptions_fixed));
      }
      CO_TRY_VALUE(again, image->check(Image::Repair::None, show));
      left = again;
      left.leaks_fixed = found.leaks_fixed;
      left.corruptions_fixed = found.corruptions_fixed;
    }
    CO_TRY(image->close());
    if (output == Output::Json) {
      say(json(left));
    } else if (!quiet) {
      print_lines(left);
      say(text(left));
    }
    if (left.check_errors) co_return kNotDone;
    if (left.corruptions) co_return kDamaged;
    co_return left.leaks ? kLeaks : kGood;
  }

  static void print_lines(const Image::Findings& found) {
    for (const std::string& line : found.lines) say(line);
  }
};

}  // namespace

void add_check(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Check>();
  state->as_qemu_img = chosen.as_qemu_img;
  CLI::App* const command = app.add_subcommand(
      "check",
      "Looks for damage in an image's tables, and mends it. Exit code: 0 good, 2 damaged, 3 leaked clusters alone, 63 a format "
      "that has nothing to check, 1 could not be looked at.");
  command->add_option("file", state->path, "the image")->required();
  state->source.add_format(*command);
  state->source.add_force_share(*command);
  state->source.add_cache(*command, "-T,--cache");
  command->add_option("-r,--repair", state->repair_what, "leaks: give back what nobody uses; all: mend what can be")->type_name("WHAT");
  command->add_flag("-p,--progress", state->percent, "say how far it is in a form for scripts");
  add_output(*command, state->output);
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
