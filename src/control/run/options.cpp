#include "control/run/options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <vector>

#include "control/run/drive_option.hpp"
#include "control/run/net_option.hpp"

namespace lodge::control {

namespace {

using machine::Config;

Result<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return fail(ErrorKind::Usage, "'{}' is not a number", text);
  return value;
}

Result<> set_text(std::string& field, std::string_view value) {
  field = value;
  return {};
}

Result<> add_removable(Config& config, machine::Media media, std::string_view value) {
  machine::DriveConfig drive = plain_drive(value == "none" ? "" : value);
  drive.media = media;
  config.drives.push_back(std::move(drive));
  return {};
}

constexpr auto
    kOptions =
        std::
            to_array<Option>(
                {
                    {"--machine", "", "direct|pc|q35",
                     "direct boots a kernel itself; pc (Intel 440FX, IDE) and q35 (ICH9, SATA) start with firmware (default: direct with --kernel, else pc)", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       const std::map<std::string_view, machine::Kind> kinds{
                           {"direct", machine::Kind::Direct}, {"pc", machine::Kind::Pc}, {"q35", machine::Kind::Q35}};
                       const auto kind = kinds.find(value);
                       if (kind == kinds.end()) return fail(ErrorKind::Usage, "unknown machine '{}': use direct, pc or q35", value);
                       config.machine = kind->second;
                       return {};
                     }},
                    {"--firmware", "", "bios|uefi|FILE", "what the machines pc and q35 start with: SeaBIOS (bios, the default), OVMF (uefi) or an image", false,
                     [](Config& config, std::string_view value) { return set_text(config.firmware, value); }},
                    {"--uefi-vars", "", "FILE|none",
                     "where UEFI firmware keeps its variables (default: beside the first disk, as DISK.uefi-vars)", false,
                     [](Config& config, std::string_view value) { return set_text(config.uefi_vars, value); }},
                    {"--kernel", "", "FILE", "the guest's kernel: a bzImage (/boot/vmlinuz-...) or an ELF vmlinux with a PVH entry; with --machine pc or q35 a bzImage or a multiboot kernel, which the BIOS starts; with --firmware uefi an EFI program, as a bzImage is one", false,
                     [](Config& config, std::string_view value) { return set_text(config.kernel, value); }},
                    {"--initrd", "", "FILE", "the initial RAM disk; of a multiboot kernel its modules: \"FILE[ WORDS],FILE...\"", false,
                     [](Config& config, std::string_view value) { return set_text(config.initrd, value); }},
                    {"--append", "", "STRING", "the kernel's command line, such as \"console=ttyS0\"", false,
                     [](Config& config, std::string_view value) { return set_text(config.append, value); }},
                    {"--drive", "", "file=IMAGE[,SETTING...]", "a disk, with settings: see below", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       config.drives.push_back(TRY(parse_drive(value)));
                       return {};
                     }},
                    {"--cdrom", "", "FILE|none", "a CD or DVD: an ISO image; none: a drive without one", false,
                     [](Config& config, std::string_view value) { return add_removable(config, machine::Media::Optical, value); }},
                    {"--floppy", "", "FILE|none", "a floppy disk, by its size from 160 to 2880 KiB; none: a drive without one", false,
                     [](Config& config, std::string_view value) { return add_removable(config, machine::Media::Floppy, value); }},
                    {"--boot", "", "WHAT[,WHAT...]",
                     "what firmware tries first, and after that: disk, cd, floppy, network, or one of them (disk1, cd0); and \"menu\" to be asked", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       config.boot = TRY(machine::parse_boot_order(value));
                       return {};
                     }},
                    {"--snapshot", "", "", "no disk is changed: what is written to any goes with the machine", false,
                     [](Config& config, std::string_view) -> Result<> {
                       config.snapshot = true;
                       return {};
                     }},
                    {"--net", "", "user|tap|none[,SETTING...]",
                     "a network card: on a network of its own behind NAT (the default), on a tap interface of the host's, or no card",
                     false,
                     [](Config& config, std::string_view value) -> Result<> {
                       const auto nic = TRY(parse_net(value));
                       if (nic)
                         config.nics.push_back(*nic);
                       else
                         config.no_nics = true;
                       return {};
                     }},
                    {"--memory", "-m", "SIZE", "the guest's memory: MiB, or with K, M, G or T; at least 16M (default 1G)", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       config.memory = TRY(parse_size(value));
                       return {};
                     }},
                    {"--cpus", "-c", "NUMBER", "virtual processors, 1 to 254 (default 1)", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       config.vcpus = static_cast<uint32_t>(std::min<uint64_t>(TRY(parse_number(value)), UINT32_MAX));
                       return {};
                     }},
                    {"--engine", "", "auto|kvm|soft",
                     "what runs the processors: the kernel's KVM, Lodge's own engine, or the first that works (default auto)", false,
                     [](Config& config, std::string_view value) { return set_text(config.engine, value); }},
                    {"--cpu", "", "MODEL", "the processor model: host, all that the engine can do (default host)", false,
                     [](Config& config, std::string_view value) { return set_text(config.cpu, value); }},
                    {"--serial", "", "LINE", "where the serial port leads: stdio, null, file:PATH or unix:PATH (default stdio)", false,
                     [](Config& config, std::string_view value) { return set_text(config.serial, value); }},
                    {"--console",
                     "", "LINE", "a virtio console, /dev/hvc0 in the guest, that leads where a serial port could (default: none)", false,
                     [](Config& config, std::string_view value) { return set_text(config.console, value); }},
                    {"--display", "", "none|vnc|web[=HOST:PORT]",
                     "who sees the machine's screen: nobody, VNC viewers (from port 5900 on) or browsers (from port 6080 on)", false,
                     [](Config& config, std::string_view value) { return set_text(config.display, value); }},
                    {"--vnc-password", "", "FILE", "viewers must know the password in the file's first line", false,
                     [](Config& config, std::string_view value) { return set_text(config.vnc_password_file, value); }},
                    {"--keyboard", "", "ps2|usb", "the guest's keyboard: at the keyboard controller (default), or on USB where the guest uses that", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       if (value != "ps2" && value != "usb") return fail(ErrorKind::Usage, "there is no keyboard '{}': use ps2 or usb", value);
                       config.usb_keyboard = value == "usb";
                       return {};
                     }},
                    {"--keymap", "", "us|de|fr", "the guest's keyboard layout, for viewers that send characters (default us)", false,
                     [](Config& config, std::string_view value) { return set_text(config.keymap, value); }},
                    {"--vga", "", "std|none", "the machine pc's graphics card (default std)", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       if (value != "std" && value != "none") return fail(ErrorKind::Usage, "unknown graphics card '{}': use std or none", value);
                       config.vga = value == "std";
                       return {};
                     }},
                    {"--balloon", "", "on|off|SIZE",
                     "take back memory that the guest has no use for (on, the default), or leave it SIZE of its memory", false,
                     [](Config& config, std::string_view value) -> Result<> {
                       config.balloon = value != "off";
                       config.balloon_keeps = value == "on" || value == "off" ? 0 : TRY(parse_size(value));
                       return {};
                     }},
                    {"--debug-exit", "", "", "what the guest writes to port 0x501 ends the process, with exit code 2 * value + 1: for tests", false,
                     [](Config& config, std::string_view) -> Result<> {
                       config.debug_exit = true;
                       return {};
                     }},
                    {"--no-reboot", "", "", "end when the guest resets, or its kernel panics, instead of going on", false,
                     [](Config& config, std::string_view) -> Result<> {
                       config.reboot = false;
                       return {};
                     }},
                    {"--name", "", "NAME", "the machine's name, which ps shows and other commands take (default: after the file it boots)", false,
                     [](Config& config, std::string_view value) {
                       config.name_is_given = true;
                       return set_text(config.name, value);
                     }},
                    {"--debug-console", "", "null|file:PATH", "bytes that the guest writes to the ports 0xE9 and 0x402 (default null)",
                     false, [](Config& config, std::string_view value) { return set_text(config.debug_console, value); }},
                    {"--profile", "", "FILE", "engine soft: a report of where the guest's time goes, written at the end", false,
                     [](Config& config, std::string_view value) { return set_text(config.profile, value); }},
                    {"--jitdump", "", "FOLDER", "engine soft: jit-PID.dump, which tells perf of translated code (perf inject --jit)", false,
                     [](Config& config, std::string_view value) { return set_text(config.jitdump, value); }},
                    {"--no-unpack", "", "", "let a bzImage unpack itself inside the guest", true,
                     [](Config& config, std::string_view) -> Result<> {
                       config.unpack_natively = false;
                       return {};
                     }},
                    {"--code-cache", "", "SIZE", "engine soft: memory for translated code", true,
                     [](Config& config, std::string_view value) -> Result<> {
                       config.code_cache = TRY(parse_size(value));
                       return {};
                     }},
                    {"--soft-tier", "", "1|2", "engine soft: translate single instructions only (1) or whole blocks (2, the default)", true,
                     [](Config& config, std::string_view value) -> Result<> {
                       if (value != "1" && value != "2") return fail(ErrorKind::Usage, "'{}' is neither 1 nor 2", value);
                       config.soft_tier = value == "1" ? 1 : 2;
                       return {};
                     }},
                    {"--state-trace", "", "FILE[,EVERY[,FROM]]",
                     "with --virtual-clock: write the processor's state every so many instructions", true,
                     [](Config& config, std::string_view value) -> Result<> {
                       const size_t comma = value.find(',');
                       config.state_trace = value.substr(0, comma);
                       if (comma == std::string_view::npos) return {};
                       const std::string_view numbers = value.substr(comma + 1);
                       const size_t second = numbers.find(',');
                       config.state_trace_every = TRY(parse_number(numbers.substr(0, second)));
                       if (!config.state_trace_every) return fail(ErrorKind::Usage, "the distance of two states is at least 1");
                       if (second != std::string_view::npos) config.state_trace_from = TRY(parse_number(numbers.substr(second + 1)));
                       return {};
                     }},
                    {"--virtual-clock", "", "", "engine soft: time counts the guest's instructions, so that a run repeats exactly", true,
                     [](Config& config, std::string_view) -> Result<> {
                       config.virtual_clock = true;
                       return {};
                     }},
                });

const Option* find_option(std::string_view name) {
  for (const Option& option : kOptions)
    if (name == option.name || (!option.short_name.empty() && name == option.short_name)) return &option;
  return nullptr;
}

// After what it boots from.
std::string default_name(const Config& config) {
  const std::string& file = !config.kernel.empty() ? config.kernel : config.drives.empty() ? config.firmware_name() : config.drives[0].file;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? file : file.substr(slash + 1);
}

}  // namespace

std::span<const Option> run_options() { return kOptions; }

Result<uint64_t> parse_size(std::string_view text) {
  uint64_t unit = machine::kMiB;
  std::string_view digits = text;
  if (!text.empty()) {
    constexpr std::string_view kSuffixes = "KMGT";
    const size_t power = kSuffixes.find(static_cast<char>(text.back() & ~0x20));
    if (power != std::string_view::npos) {
      unit = uint64_t{1} << (10 * (power + 1));
      digits.remove_suffix(1);
    }
  }
  const auto number = parse_number(digits);
  if (!number) return fail(ErrorKind::Usage, "'{}' is not a size: give MiB, or a number with K, M, G or T", text);
  if (*number > UINT64_MAX / unit) return fail(ErrorKind::Usage, "'{}' is too large a size", text);
  return *number * unit;
}

Result<Config> parse_run_options(std::span<const std::string> arguments) {
  Config config;
  config.serial.clear();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (!argument.starts_with('-')) {
      config.drives.push_back(plain_drive(argument));
      continue;
    }
    // "--name=value" and "--name value".
    const size_t equals = argument.starts_with("--") ? argument.find('=') : std::string_view::npos;
    const std::string_view name = argument.substr(0, equals);
    const Option* option = find_option(name);
    if (!option) return fail(ErrorKind::Usage, "unknown option '{}': see 'lodge help run'", argument);
    std::string_view value;
    if (option->argument.empty()) {
      if (equals != std::string_view::npos) return fail(ErrorKind::Usage, "{} takes no value", option->name);
    } else if (equals != std::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (++i < arguments.size()) {
      value = arguments[i];
    } else {
      return fail(ErrorKind::Usage, "{} needs a value: {} {}", name, name, option->argument);
    }
    if (const auto applied = option->apply(config, value); !applied) return fail(ErrorKind::Usage, "{}: {}", name, applied.error().message);
  }
  if (config.no_nics && !config.nics.empty()) return fail(ErrorKind::Usage, "--net none and other networks do not go together");
  // What a card does depends on the host's time, so a run that is to repeat has none.
  if (!config.no_nics && config.nics.empty() && !config.virtual_clock) config.nics.emplace_back();
  if (config.serial.empty()) config.serial = config.console == "stdio" ? "null" : "stdio";
  // Nor random numbers and a balloon, which comes to its work when the host does.
  if (config.virtual_clock) config.entropy = config.balloon = false;
  if (config.name.empty()) config.name = default_name(config);
  for (machine::DriveConfig& drive : config.drives) drive.image.snapshot |= config.snapshot && !drive.disk.read_only;
  TRY(machine::place_drives(config));
  TRY(machine::validate(config));
  return config;
}

std::string run_help() {
  std::string text =
      "Usage: lodge run [options] [DISK...]\n       lodge run --kernel FILE [options] [DISK...]\n\n"
      "The first form starts a PC by its firmware, the second one boots the kernel itself. A DISK is an image\n"
      "as for --drive file=DISK: on IDE in the first form, in the second on virtio, /dev/vda in the guest and on.\n\nOptions:\n";
  for (const Option& option : kOptions) {
    if (option.hidden) continue;
    std::string left = "  ";
    if (!option.short_name.empty()) left += fmt::format("{}, ", option.short_name);
    left += option.name;
    if (!option.argument.empty()) left += fmt::format(" {}", option.argument);
    text += fmt::format("{}\n      {}\n", left, option.help);
  }
  text += drive_help();
  text += net_help();
  text +=
      "\nOn a terminal: Ctrl-A x quits, Ctrl-A h shows the keys, Ctrl-A Ctrl-A types Ctrl-A.\n"
      "SIGTERM and SIGINT press the guest's power button; a second one ends it.\n"
      "SIGUSR1 asks the guest what it knows of its memory, for the log.\n"
      "\nExit codes:\n"
      "  0  the guest switched itself off, reset itself with --no-reboot, or was quit\n"
      "  1  Lodge or its engine failed\n"
      "  2  bad usage or input\n"
      "  3  the guest crashed: a triple fault or a panic with --no-reboot, or stuck for good\n";
  return text;
}

}  // namespace lodge::control
