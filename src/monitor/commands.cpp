#include "monitor/commands.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/write_all.hpp"
#include "display/keys.hpp"
#include "display/png.hpp"

namespace lodge::monitor {

namespace {

using nlohmann::json;
using Answer = std::expected<json, CommandError>;

std::unexpected<CommandError> refuse(std::string description) {
  return std::unexpected(CommandError{.description = std::move(description)});
}

struct Context {
  Commands& commands;
  Target& target;
  const json& arguments;
};

// A text among the arguments; empty: it is not given.
std::string text_of(const json& arguments, const char* name) {
  const auto found = arguments.find(name);
  return found != arguments.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// Whoever reads the file finds the whole picture or the old file.
Result<> write_file(const std::string& path, std::span<const uint8_t> bytes) {
  const std::string beside = path + ".part";
  Fd fd(open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return os_fail(path);
  int error = write_all(fd.get(), bytes);
  fd.reset();
  if (error == 0 && rename(beside.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return {};
  unlink(beside.c_str());
  return os_fail(path, error);
}

Answer screendump(const Context& c) {
  const std::string path = text_of(c.arguments, "filename"), format = text_of(c.arguments, "format");
  if (path.empty()) return refuse("Parameter 'filename' is missing");
  if (!format.empty() && format != "png") return refuse("Parameter 'format' must be 'png'");
  if (!c.target.seat().has_screen()) return refuse("the machine has no screen");
  const auto bytes = display::encode_png(c.target.seat().picture());
  if (!bytes) return refuse(bytes.error().message);
  if (const auto written = write_file(path, *bytes); !written) return refuse(written.error().message);
  return json::object();
}

// A KeyValue of QMP: {"type": "qcode", "data": "ctrl"}, or "number" with a code of scan code set 1.
std::expected<display::Key, CommandError> key_of(const json& value) {
  if (!value.is_object()) return refuse("a key must be an object with 'type' and 'data'");
  const std::string type = text_of(value, "type");
  const auto data = value.find("data");
  if (type == "qcode" && data != value.end() && data->is_string()) {
    const std::string name = data->get<std::string>();
    if (const auto key = display::key_named(name)) return *key;
    return refuse(fmt::format("there is no key '{}'", name));
  }
  if (type == "number" && data != value.end() && data->is_number_unsigned()) {
    if (const auto key = display::key_of_scan_code(data->get<uint32_t>())) return *key;
    return refuse(fmt::format("no key has the number {}", data->get<uint32_t>()));
  }
  return refuse("a key's 'type' must be 'qcode' or 'number'");
}

Answer send_key(const Context& c) {
  constexpr uint64_t kUsualHold = 100, kLongestHold = 60'000;
  const auto keys = c.arguments.find("keys");
  if (keys == c.arguments.end() || !keys->is_array() || keys->empty()) return refuse("Parameter 'keys' is missing");
  std::vector<display::Key> all;
  for (const json& value : *keys) {
    const auto key = key_of(value);
    if (!key) return std::unexpected(key.error());
    all.push_back(*key);
  }
  uint64_t hold = kUsualHold;
  if (const auto given = c.arguments.find("hold-time"); given != c.arguments.end()) {
    if (!given->is_number_unsigned() || *given > kLongestHold) return refuse("Parameter 'hold-time' must be at most 60000 milliseconds");
    hold = given->get<uint64_t>();
  }
  for (const display::Key key : all) c.target.seat().key(key, true);
  c.commands.hold(std::move(all), hold * 1'000'000);
  return json::object();
}

Answer input_send_event(const Context& c) {
  const auto events = c.arguments.find("events");
  if (events == c.arguments.end() || !events->is_array()) return refuse("Parameter 'events' is missing");
  int dx = 0, dy = 0;
  auto& [x, y, buttons] = c.commands.pointer();
  for (const json& event : *events) {
    const std::string type = event.is_object() ? text_of(event, "type") : std::string();
    const auto data = event.is_object() ? event.find("data") : event.end();
    if (type.empty() || data == event.end() || !data->is_object()) return refuse("an event must be an object with 'type' and 'data'");
    if (type == "key") {
      const auto value = data->find("key");
      const auto key = key_of(value == data->end() ? json() : *value);
      if (!key) return std::unexpected(key.error());
      c.target.seat().key(*key, data->value("down", true));
    } else if (type == "rel") {
      const auto value = data->find("value");
      if (value == data->end() || !value->is_number_integer()) return refuse("a movement's 'value' must be a number");
      (text_of(*data, "axis") == "y" ? dy : dx) += static_cast<int>(std::clamp<int64_t>(value->get<int64_t>(), -10000, 10000));
    } else if (type == "abs") {
      const auto value = data->find("value");
      if (value == data->end() || !value->is_number_unsigned() || *value > display::TabletInput::kMost)
        return refuse("a place's 'value' must be a number from 0 to 32767");
      (text_of(*data, "axis") == "y" ? y : x) = value->get<unsigned>();
    } else if (type == "btn") {
      const std::string button = text_of(*data, "button");
      const auto bit = static_cast<uint8_t>(button == "left"     ? display::kLeft
                                            : button == "right"  ? display::kRight
                                            : button == "middle" ? display::kMiddle
                                                                 : 0);
      if (bit == 0) return refuse(fmt::format("there is no button '{}'", button));
      buttons = static_cast<uint8_t>(data->value("down", true) ? buttons | bit : buttons & ~bit);
    } else {
      return refuse(fmt::format("events of type '{}' are not known", type));
    }
  }
  if (dx != 0 || dy != 0)
    c.target.seat().move(dx, dy, 0, buttons);
  else
    c.target.seat().place({.x = x, .y = y, .buttons = buttons});
  return json::object();
}

// The drive of a command: "device", or "id" as newer clients say; the first if none is named.
std::string drive_of(const Context& c) {
  const std::string device = text_of(c.arguments, "device"), id = text_of(c.arguments, "id");
  return !id.empty() ? id : !device.empty() ? device : "cd0";
}

bool flag_of(const json& arguments, const char* name) {
  const auto found = arguments.find(name);
  return found != arguments.end() && found->is_boolean() && found->get<bool>();
}

Answer query_block(const Context& c) {
  json all = json::array();
  for (const Tray& tray : c.target.trays()) {
    json drive{{"device", tray.name}, {"removable", true}, {"locked", tray.locked}, {"tray_open", tray.open}, {"type", "unknown"}};
    if (!tray.file.empty()) drive["inserted"] = {{"file", tray.file}, {"ro", tray.read_only}};
    all.push_back(std::move(drive));
  }
  return all;
}

Answer eject(const Context& c) {
  if (const auto done = c.target.eject(drive_of(c), flag_of(c.arguments, "force")); !done) return refuse(done.error().message);
  return json::object();
}

Answer change_medium(const Context& c) {
  const std::string file = text_of(c.arguments, "filename");
  if (file.empty()) return refuse("Parameter 'filename' is missing");
  if (const auto done = c.target.insert(drive_of(c), file, flag_of(c.arguments, "force")); !done) return refuse(done.error().message);
  return json::object();
}

Answer done() { return json::object(); }

struct Command {
  const char* name;
  Answer (*execute)(const Context&);
};

Answer query_commands(const Context&);

constexpr auto kCommands = std::to_array<Command>({
    {"qmp_capabilities", [](const Context&) { return done(); }},
    {"query-commands", &query_commands},
    {"query-version", [](const Context&) -> Answer { return Commands::version(); }},
    {"query-name", [](const Context& c) -> Answer { return json{{"name", c.target.name()}}; }},
    {"query-status",
     [](const Context& c) -> Answer {
       const bool paused = c.target.paused();
       return json{{"running", !paused}, {"singlestep", false}, {"status", paused ? "paused" : "running"}};
     }},
    // Not QMP's: what a list of machines shows of each, in one go.
    {"x-lodge-query-machine",
     [](const Context& c) -> Answer {
       return json{{"name", c.target.name()},
                   {"pid", getpid()},
                   {"status", c.target.paused() ? "paused" : "running"},
                   {"memory", c.target.memory_bytes()},
                   {"cpus", c.target.processors()},
                   {"engine", c.target.engine()},
                   {"display", c.target.display()}};
     }},
    // Not QMP's either: after its answer the connection is the serial console's, byte for byte (server.cpp).
    {Commands::kConsole, [](const Context&) { return done(); }},
    {"stop",
     [](const Context& c) {
       c.target.pause();
       return done();
     }},
    {"cont",
     [](const Context& c) {
       c.target.resume();
       return done();
     }},
    {"system_powerdown",
     [](const Context& c) {
       c.target.press_power_button();
       return done();
     }},
    {"system_reset",
     [](const Context& c) {
       c.target.reset();
       return done();
     }},
    {"quit",
     [](const Context& c) {
       c.target.quit();
       return done();
     }},
    {"query-block", &query_block},
    {"eject", &eject},
    {"blockdev-change-medium", &change_medium},
    {"screendump", &screendump},
    {"send-key", &send_key},
    {"input-send-event", &input_send_event},
});

Answer query_commands(const Context&) {
  json all = json::array();
  for (const Command& command : kCommands) all.push_back({{"name", command.name}});
  return all;
}

}  // namespace

Commands::~Commands() {
  if (deadline_ != 0) loop_.remove(deadline_);
}

json Commands::version() {
  // What clients look at to know which commands there are; these are QEMU 7.2's.
  return {{"qemu", {{"major", 7}, {"minor", 2}, {"micro", 0}}}, {"package", "Lodge " LODGE_VERSION}};
}

Answer Commands::execute(std::string_view command, const json& arguments) {
  const auto* const found = std::ranges::find(kCommands, command, &Command::name);
  if (found == kCommands.end())
    return std::unexpected(CommandError{"CommandNotFound", fmt::format("The command {} has not been found", command)});
  if (!arguments.is_object()) return refuse("'arguments' must be an object");
  return found->execute({*this, target_, arguments});
}

void Commands::hold(std::vector<display::Key> keys, uint64_t ns) {
  held_.push_back({std::move(keys), HostClock().monotonic_ns() + ns});
  if (deadline_ != 0) return;
  deadline_ = loop_.add_deadline(
      [this] {
        uint64_t next = kNever;
        for (const Held& held : held_) next = std::min(next, held.until_ns);
        return next;
      },
      [this] { release_due(); });
}

void Commands::release_due() {
  const uint64_t now = HostClock().monotonic_ns();
  std::erase_if(held_, [&](const Held& held) {
    if (held.until_ns > now) return false;
    for (auto key = held.keys.rbegin(); key != held.keys.rend(); ++key) target_.seat().key(*key, false);
    return true;
  });
}

}  // namespace lodge::monitor
