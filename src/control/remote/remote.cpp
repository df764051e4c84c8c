#include "control/remote/remote.hpp"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "control/remote/console_command.hpp"
#include "control/remote/typing.hpp"
#include "machine/life_cycle.hpp"
#include "monitor/client.hpp"
#include "monitor/runtime_folder.hpp"

namespace lodge::control {

namespace {

using monitor::Client;
using nlohmann::json;
using Arguments = std::span<const std::string>;

struct Command {
  const char* name;
  const char* arguments;
  const char* help;
  size_t least, most;  // arguments
  Result<> (*run)(Arguments arguments);
};

// --- lodge ps

struct Row {
  std::string name, status, pid, engine, cpus, memory, display;
};

Row row_of(const std::string& name) {
  Row row{.name = name, .status = "silent", .pid = "-", .engine = "-", .cpus = "-", .memory = "-", .display = "-"};
  auto client = Client::connect(name);
  if (!client) return row;
  const auto machine = client->execute("x-lodge-query-machine");
  if (!machine) return row;
  row.status = machine->value("status", "?");
  row.pid = fmt::format("{}", machine->value("pid", 0));
  row.engine = machine->value("engine", "?");
  row.cpus = fmt::format("{}", machine->value("cpus", 0));
  row.memory = fmt::format("{}M", machine->value("memory", uint64_t{0}) >> 20);
  const std::string display = machine->value("display", "");
  if (!display.empty()) row.display = display;
  return row;
}

Result<> ps(Arguments arguments) {
  const bool as_json = !arguments.empty() && arguments[0] == "--json";
  if (!arguments.empty() && !as_json) return fail(ErrorKind::Usage, "unknown option '{}': lodge ps takes --json", arguments[0]);
  std::vector<Row> rows;
  for (const std::string& name : TRY(monitor::RuntimeFolder::open()).names()) rows.push_back(row_of(name));
  if (as_json) {
    json all = json::array();
    for (const Row& row : rows)
      all.push_back({{"name", row.name},
                     {"status", row.status},
                     {"pid", row.pid},
                     {"engine", row.engine},
                     {"cpus", row.cpus},
                     {"memory", row.memory},
                     {"display", row.display}});
    std::puts(all.dump(2).c_str());
    return {};
  }
  rows.insert(rows.begin(), Row{"NAME", "STATUS", "PID", "ENGINE", "CPUS", "MEMORY", "DISPLAY"});
  size_t widest = 0;
  for (const Row& row : rows) widest = std::max(widest, row.name.size());
  for (const Row& row : rows)
    fmt::print("{:<{}}  {:<8} {:>8}  {:<6} {:>4} {:>8}  {}\n", row.name, widest, row.status, row.pid, row.engine, row.cpus, row.memory,
               row.display);
  return {};
}

// --- Commands of one step

template <const char* const& kName>
Result<> plain(Arguments arguments) {
  auto client = TRY(Client::connect(arguments[0]));
  TRY(client.execute(kName));
  return {};
}

constexpr const char* kPause = "stop";
constexpr const char* kResume = "cont";
constexpr const char* kReset = "system_reset";

Result<uint64_t> seconds_of(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > 86400)
    return fail(ErrorKind::Usage, "'{}' is no number of seconds up to a day", text);
  return value;
}

// The power button, and then the guest's own time to switch itself off.
Result<> stop(Arguments arguments) {
  constexpr uint64_t kUsual = 60;
  const uint64_t patience = arguments.size() > 1 ? TRY(seconds_of(arguments[1])) : kUsual;
  auto client = TRY(Client::connect(arguments[0]));
  TRY(client.execute("system_powerdown"));
  if (client.wait_for_end(patience * kSecondNs)) return {};
  return fail(ErrorKind::Resource,
              "the guest of '{}' has not switched itself off within {} s of its power button: wait, or 'lodge kill {}'", arguments[0],
              patience, arguments[0]);
}

// A process that does not answer any more is ended by a signal.
Result<> kill_machine(Arguments arguments) {
  auto client = Client::connect(arguments[0]);
  if (client) {
    if (client->execute("quit") && client->wait_for_end(5 * kSecondNs)) return {};
  } else if (client.error().kind != ErrorKind::Resource) {
    return std::unexpected(client.error());
  }
  const monitor::RuntimeFolder folder = TRY(monitor::RuntimeFolder::open());
  const pid_t pid = TRY(folder.owner(arguments[0]));
  if (kill(pid, SIGKILL) != 0) return os_fail(fmt::format("killing process {}", pid));
  return {};
}

Result<> screenshot(Arguments arguments) {
  std::error_code error;
  const std::string path = std::filesystem::absolute(arguments[1], error);
  if (error) return fail(ErrorKind::Usage, "{}: {}", arguments[1], error.message());
  auto client = TRY(Client::connect(arguments[0]));
  TRY(client.execute("screendump", {{"filename", path}, {"format", "png"}}));
  return {};
}

Result<> press(Client& client, const std::vector<std::string>& keys, unsigned hold_ms) {
  json values = json::array();
  for (const std::string& key : keys) values.push_back({{"type", "qcode"}, {"data", key}});
  TRY(client.execute("send-key", {{"keys", values}, {"hold-time", hold_ms}}));
  // The next key comes when these are up again.
  std::this_thread::sleep_for(std::chrono::milliseconds(2 * hold_ms));
  return {};
}

// The words that are no options, and whether --force is among them.
struct Forced {
  std::vector<std::string> words;
  bool force = false;
};
Result<Forced> take_force(Arguments arguments) {
  Forced taken;
  for (const std::string& argument : arguments) {
    if (argument == "--force")
      taken.force = true;
    else if (argument.starts_with("--"))
      return fail(ErrorKind::Usage, "unknown option '{}'", argument);
    else
      taken.words.push_back(argument);
  }
  return taken;
}

Result<> eject(Arguments arguments) {
  const auto [words, force] = TRY(take_force(arguments));
  if (words.empty() || words.size() > 2) return fail(ErrorKind::Usage, "give a machine's NAME, and a drive if it is not cd0");
  auto client = TRY(Client::connect(words[0]));
  TRY(client.execute("eject", {{"device", words.size() > 1 ? words[1] : "cd0"}, {"force", force}}));
  return {};
}

Result<> insert(Arguments arguments) {
  const auto [words, force] = TRY(take_force(arguments));
  if (words.size() < 2 || words.size() > 3) return fail(ErrorKind::Usage, "give a machine's NAME and a FILE, and a drive if it is not cd0");
  std::error_code error;
  const bool plain = words[1].find("://") == std::string::npos;
  const std::string file = plain ? std::filesystem::absolute(words[1], error).string() : words[1];
  auto client = TRY(Client::connect(words[0]));
  TRY(client.execute("blockdev-change-medium", {{"device", words.size() > 2 ? words[2] : "cd0"}, {"filename", file}, {"force", force}}));
  return {};
}

Result<> key(Arguments arguments) {
  constexpr unsigned kHoldMs = 50;
  std::vector<std::vector<std::string>> chords;
  for (const std::string& text : arguments.subspan(1)) chords.push_back(TRY(parse_chord(text)));
  auto client = TRY(Client::connect(arguments[0]));
  for (const auto& chord : chords) TRY(press(client, chord, kHoldMs));
  return {};
}

Result<> type(Arguments arguments) {
  constexpr unsigned kHoldMs = 15;
  const display::Layout* layout = TRY(display::Layout::named(arguments.size() > 2 ? arguments[2] : "us"));
  const auto strokes = TRY(parse_text(arguments[1], *layout));
  auto client = TRY(Client::connect(arguments[0]));
  for (const auto& stroke : strokes) TRY(press(client, stroke, kHoldMs));
  return {};
}

Result<> share(Arguments arguments) { return share_console(arguments[0]); }

constexpr auto kCommands = std::to_array<Command>({
    {"ps", "[--json]", "list the machines that run", 0, 1, &ps},
    {"console", "NAME", "share the serial console; Ctrl-A x leaves it", 1, 1, &share},
    {"stop", "NAME [SECONDS]", "press the power button and wait for the end", 1, 2, &stop},
    {"kill", "NAME", "end a machine at once, as if its plug were pulled", 1, 1, &kill_machine},
    {"reset", "NAME", "press the reset button", 1, 1, &plain<kReset>},
    {"pause", "NAME", "let a machine stand still", 1, 1, &plain<kPause>},
    {"resume", "NAME", "let it go on", 1, 1, &plain<kResume>},
    {"eject", "NAME [DRIVE] [--force]", "take the CD or floppy disk out of the drive, cd0 unless named", 1, 3, &eject},
    {"insert", "NAME FILE [DRIVE] [--force]", "put a CD or floppy disk in", 2, 4, &insert},
    {"screenshot", "NAME FILE.png", "save a picture of the screen", 2, 2, &screenshot},
    {"key", "NAME KEYS...", "press keys: ctrl-alt-delete, f2, ret", 2, 1000, &key},
    {"type", "NAME TEXT [LAYOUT]", "type text on a keyboard of layout us, de or fr", 2, 3, &type},
});

const Command* find_command(std::string_view name) {
  const auto* const found = std::ranges::find(kCommands, name, &Command::name);
  return found == kCommands.end() ? nullptr : found;
}

}  // namespace

bool is_remote_command(std::string_view command) { return find_command(command) != nullptr; }

std::string remote_help() {
  std::string text;
  for (const Command& command : kCommands)
    text += fmt::format("  {:<34}{}\n", fmt::format("lodge {} {}", command.name, command.arguments), command.help);
  return text;
}

int run_remote(const std::string& name, Arguments arguments) {
  const Command& command = *find_command(name);
  const bool asks = !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h");
  if (asks) {
    fmt::print("Usage: lodge {} {}\n\n  {}\n", command.name, command.arguments, command.help);
    return 0;
  }
  if (arguments.size() < command.least || arguments.size() > command.most) {
    log::error("usage: lodge {} {}", command.name, command.arguments);
    return static_cast<int>(machine::ExitCode::BadInput);
  }
  const Result<> done = command.run(arguments);
  if (done) return 0;
  log::error("{}", done.error().message);
  return static_cast<int>(machine::exit_code_of(done.error()));
}

}  // namespace lodge::control
