#include "machine/life_cycle.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/log.hpp"
#include "console/cleanup.hpp"
#include "display/vnc/server.hpp"
#include "machine/firmware.hpp"
#include "machine/firmware_items.hpp"
#include "machine/input_file.hpp"
#include "machine/machine.hpp"
#include "machine/steering.hpp"
#include "monitor/runtime_folder.hpp"
#include "monitor/server.hpp"

namespace lodge::machine {

namespace {

std::string read_text(const char* path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// SIGTERM and SIGINT press the power button first and end the process the second time; SIGHUP (the terminal is gone) ends
// it at once; SIGWINCH tells the guest of the terminal's size; SIGUSR1 asks for the guest's view of its memory. They are blocked before any
// thread starts and read by the event loop.
class Signals {
 public:
  static Result<std::unique_ptr<Signals>> create(EventLoop& loop, Steering& steering) {
    std::unique_ptr<Signals> signals(new Signals(loop, steering));
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGWINCH, SIGUSR1}) sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signals->fd_ = Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals->fd_) return os_fail("signalfd");
    signals->source_ = loop.add_source(signals->fd_.get(), [] { return short{POLLIN}; }, [s = signals.get()](short) { s->take(); });
    return signals;
  }
  ~Signals() { loop_.remove(source_); }

  [[nodiscard]] int ended_by() const { return ended_by_; }

 private:
  Signals(EventLoop& loop, Steering& steering) : loop_(loop), steering_(steering) {}
  void take() {
    signalfd_siginfo info{};
    if (read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return;
    const auto signal = static_cast<int>(info.ssi_signo);
    Machine* const machine = steering_.machine();
    if (signal == SIGWINCH) {
      if (machine) machine->window_changed();
      return;
    }
    if (signal == SIGUSR1) {
      if (machine) machine->report_memory();
      return;
    }
    if (signal != SIGHUP && !std::exchange(pressed_, true)) {
      log::info("the power button is pressed; the same signal again ends the machine at once");
      steering_.press_power_button();
      return;
    }
    ended_by_ = signal;
    steering_.quit();
  }

  EventLoop& loop_;
  Fd fd_;
  EventLoop::Handle source_ = 0;
  Steering& steering_;
  bool pressed_ = false;
  int ended_by_ = 0;
};

Result<Fd> open_debug_console(const std::string& specification) {
  if (specification == "null") return Fd();
  if (!specification.starts_with("file:") || specification.size() == 5)
    return fail(ErrorKind::Usage, "unknown debug console '{}': use null or file:PATH", specification);
  Fd fd(open(specification.c_str() + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return fail(ErrorKind::Usage, "--debug-console {}: {}", specification, os_error("cannot open it").message);
  return fd;
}

void report_crash(Machine& machine) {
  log::error("the guest's machine ended: {}", machine.reason());
  const std::string text = machine.dump();
  std::fwrite(text.data(), 1, text.size(), stderr);
}

// What one boot's end means for the process; nothing when the machine boots again.
std::optional<ExitCode> conclude(Machine& machine, Outcome outcome, const Config& config) {
  switch (outcome) {
    case Outcome::PowerOff:
    case Outcome::Quit: return ExitCode::PoweredOff;
    case Outcome::Restart: return std::nullopt;
    case Outcome::Reset:
      if (!config.reboot) return ExitCode::PoweredOff;
      return std::nullopt;
    case Outcome::TripleFault:
      if (config.reboot) {
        log::warning("the guest had a triple fault; it is reset, as hardware does");
        return std::nullopt;
      }
      report_crash(machine);
      return ExitCode::GuestCrashed;
    case Outcome::DebugExit: return static_cast<ExitCode>(machine.debug_exit_code());
    case Outcome::Panicked:
    case Outcome::Stuck: report_crash(machine); return ExitCode::GuestCrashed;
    case Outcome::EngineFailed: report_crash(machine); return ExitCode::Failed;
  }
  return ExitCode::Failed;
}

Result<ExitCode> boot_until_it_ends(const Machine::Parts& parts, Steering& steering) {
  for (;;) {
    const std::unique_ptr<Machine> machine = TRY(Machine::create(parts));
    steering.set_machine(machine.get());
    const Outcome outcome = steering.quitting() ? Outcome::Quit : machine->run();
    steering.set_machine(nullptr);
    const auto code = conclude(*machine, outcome, parts.config);
    steering.announce(code ? "SHUTDOWN" : "RESET");
    if (code) return *code;
  }
}

// The machine under its name in the user's folder of running machines. A host without a place for that folder runs machines all the same,
// out of reach of other commands.
Result<std::optional<monitor::NameClaim>> claim_name(const Config& config) {
  const auto folder = monitor::RuntimeFolder::open();
  if (!folder) {
    log::debug("this machine cannot be controlled by other commands: {}", folder.error().message);
    return std::optional<monitor::NameClaim>();
  }
  auto claim = monitor::NameClaim::take(*folder, monitor::make_name(config.name), !config.name_is_given);
  if (claim) return std::optional(std::move(*claim));
  if (config.name_is_given) return std::unexpected(std::move(claim.error()));
  log::debug("this machine cannot be controlled by other commands: {}", claim.error().message);
  return std::optional<monitor::NameClaim>();
}

// Null: nobody can look.
Result<std::unique_ptr<display::vnc::Server>> open_display(const Config& config, Steering& steering) {
  if (config.display == "none") return std::unique_ptr<display::vnc::Server>();
  const size_t equals = config.display.find('=');
  const bool web = config.display.substr(0, equals) == "web";
  auto server = TRY(display::vnc::Server::start({.web = web,
                                                 .address = equals == std::string::npos ? std::string() : config.display.substr(equals + 1),
                                                 .password_file = config.vnc_password_file,
                                                 .keymap = config.keymap,
                                                 .title = steering.name() + " - Lodge"},
                                                steering.seat()));
  steering.set_display(server->where());
  return server;
}

// Linux's name is the whole of the option, commas and all.
Result<std::vector<KernelModule>> read_modules(const std::string& option, bool multiboot) {
  std::vector<ModuleName> names;
  if (multiboot)
    names = parse_module_names(option);
  else if (!option.empty())
    names.push_back({.file = option, .words = ""});
  std::vector<KernelModule> modules;
  for (ModuleName& name : names) {
    std::vector<uint8_t> bytes = TRY(read_file(name.file, "initrd"));
    modules.push_back({.name = std::move(name), .bytes = std::move(bytes)});
  }
  return modules;
}

}  // namespace

ExitCode exit_code_of(const Error& error) {
  switch (error.kind) {
    case ErrorKind::Usage:
    case ErrorKind::NotFound:
    case ErrorKind::Permission:
    case ErrorKind::Unsupported: return ExitCode::BadInput;
    default: return ExitCode::Failed;
  }
}

Result<ExitCode> run(const Config& config, const OpenEngine& open_engine) {
  TRY(validate(config));
  TRY(check_host_memory(config.memory, read_text("/proc/meminfo"), read_text("/proc/sys/vm/overcommit_memory")));
  std::optional<Kernel> kernel;
  std::optional<Firmware> firmware;
  std::unique_ptr<VariableStore> variables;
  std::optional<BiosKernel> bios_kernel;
  std::vector<KernelModule> modules;
  std::vector<uint8_t> vga_rom, e1000_rom, virtio_rom, handed_kernel;
  if (config.kind() == Kind::Direct) {
    std::vector<uint8_t> file = TRY(read_file(config.kernel, "kernel"));
    kernel = TRY(Kernel::create(std::move(file), config.kernel, config.unpack_natively));
  } else {
    firmware = TRY(Firmware::open(config.firmware_name()));
    if (!firmware->variables().empty()) variables = TRY(VariableStore::open(config.uefi_vars_path(), firmware->variables()));
    if (config.vga) vga_rom = TRY(read_vga_rom());
    if (!config.kernel.empty()) {
      std::vector<uint8_t> file = TRY(read_file(config.kernel, "kernel"));
      // A file may be firmware of either kind: then the kernel is there for both.
      if (config.firmware_name() != "bios") handed_kernel = file;
      const Result<> for_uefi = check_efi_program(file, config.kernel);
      if (config.firmware_name() == "uefi") TRY(for_uefi);
      if (config.firmware_name() != "uefi") {
        auto for_bios = BiosKernel::create(std::move(file), config.kernel);
        if (!for_bios && (handed_kernel.empty() || !for_uefi)) return std::unexpected(for_bios.error());
        if (for_bios) {
          modules = TRY(read_modules(config.initrd, for_bios->is_multiboot()));
          bios_kernel = *std::move(for_bios);
        }
      }
    }
    const auto has_cards = [&](NicConfig::Model model) {
      return std::ranges::find(config.nics, model, &NicConfig::model) != config.nics.end();
    };
    if (has_cards(NicConfig::Model::E1000)) e1000_rom = TRY(read_nic_rom(NicConfig::Model::E1000));
    // Its start costs more time than all else that SeaBIOS does, and virtio is what every machine has: only for those who ask.
    if (has_cards(NicConfig::Model::Virtio) && config.boot.names(BootOrder::Kind::Network))
      virtio_rom = TRY(read_nic_rom(NicConfig::Model::Virtio));
  }
  const bool wants_initrd = !config.initrd.empty() && (kernel || !handed_kernel.empty()) && !(bios_kernel && bios_kernel->is_multiboot());
  const std::vector<uint8_t> initrd = wants_initrd ? TRY(read_file(config.initrd, "initrd")) : std::vector<uint8_t>();
  const std::optional<monitor::NameClaim> claim = TRY(claim_name(config));
  const std::unique_ptr<engine::System> system = TRY(open_engine());
  if (const int most = system->check_extension(KVM_CAP_MAX_VCPUS); most > 0 && config.vcpus > static_cast<uint32_t>(most))
    return fail(ErrorKind::Usage, "-c {}: engine {} has at most {} vCPUs", config.vcpus, system->name(), most);

  const std::unique_ptr<EventLoop> loop = TRY(EventLoop::create());
  display::Seat seat;
  Steering steering(config, claim ? claim->name() : config.name, std::string(system->name()), seat);
  const std::shared_ptr<void> left_behind(nullptr, [&](void*) {
    if (claim) console::cleanup::remove_now(claim->path());
  });
  std::unique_ptr<monitor::Server> remote;
  if (claim) {
    TRY(console::cleanup::remove_at_end(claim->path()));
    remote = std::make_unique<monitor::Server>(claim->listener(), steering, *loop);
    steering.on_event([&](const char* event) { remote->announce(event); });
  }
  const std::unique_ptr<display::vnc::Server> viewers = TRY(open_display(config, steering));
  const std::unique_ptr<Signals> signals = TRY(Signals::create(*loop, steering));
  const Fd debug_console = TRY(open_debug_console(config.debug_console));
  console::SharedLine serial(TRY(console::open_backend("--serial", config.serial, *loop, [&] { steering.quit(); })), *loop);
  steering.set_console(&serial);
  const std::unique_ptr<Peripherals> peripherals = TRY(Peripherals::open(config, [&] { loop->post([&] { steering.quit(); }); }));
  steering.set_peripherals(peripherals.get());
  // Not before all else is known to be there.
  if (viewers) log::write(log::Level::Info, fmt::format("the screen of {} is at {}", steering.name(), viewers->where()));
  const ExitCode code = TRY(boot_until_it_ends({.system = *system,
                                                .config = config,
                                                .kernel = kernel ? &*kernel : nullptr,
                                                .handed_kernel = handed_kernel,
                                                .bios_kernel = bios_kernel ? &*bios_kernel : nullptr,
                                                .modules = modules,
                                                .firmware = firmware ? &*firmware : nullptr,
                                                .variables = variables.get(),
                                                .vga_rom = vga_rom,
                                                .e1000_rom = e1000_rom,
                                                .virtio_rom = virtio_rom,
                                                .initrd = initrd,
                                                .loop = *loop,
                                                .serial = serial,
                                                .debug_console = debug_console.get(),
                                                .peripherals = *peripherals,
                                                .seat = seat,
                                                .on_panic = [&] { steering.announce("GUEST_PANICKED"); }},
                                               steering));
  if (signals->ended_by() != 0) {
    // Whoever sent the signal sees that it ended the process.
    console::cleanup::undo_all();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signals->ended_by());
    signal(signals->ended_by(), SIG_DFL);
    raise(signals->ended_by());
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }
  return code;
}

}  // namespace lodge::machine
