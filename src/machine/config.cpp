#include "machine/config.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "display/keys.hpp"

namespace lodge::machine {

std::string Config::uefi_vars_path() const {
  if (uefi_vars == "none") return {};
  if (!uefi_vars.empty()) return uefi_vars;
  // They belong to what is installed on the disk, and go where it goes: not when it is changed for this run only.
  for (const DriveConfig& drive : drives) {
    if (drive.media != Media::Disk || drive.disk.read_only) continue;
    const bool plain_file = drive.file.find("://") == std::string::npos && !drive.file.starts_with("/dev/");
    return plain_file && !drive.image.snapshot ? drive.file + ".uefi-vars" : std::string();
  }
  return {};
}

unsigned Config::root_ports() const {
  unsigned last = 0;
  for (const DriveConfig& drive : drives) last = std::max(last, drive.port);
  for (const NicConfig& nic : nics) last = std::max(last, nic.port);
  return last;
}

namespace {

// A root port leads to one device, of PCI Express.
Result<> check_root_ports(const Config& config) {
  if (config.root_ports() == 0) return {};
  if (config.kind() != Kind::Q35) return fail(ErrorKind::Usage, "port=: PCI Express has its root ports on --machine q35");
  std::vector<bool> taken(config.root_ports() + 1);
  const auto take = [&](unsigned port) -> Result<> {
    if (port != 0 && taken[port]) return fail(ErrorKind::Usage, "port={}: there is a device behind this root port already", port);
    taken[port] = true;
    return {};
  };
  for (const DriveConfig& drive : config.drives) {
    if (drive.port != 0 && drive.interface != DriveInterface::Virtio)
      return fail(ErrorKind::Usage, "{}: port= goes with if=virtio: other drives have no place on PCI of their own", drive.file);
    TRY(take(drive.port));
  }
  for (const NicConfig& nic : config.nics) {
    if (nic.port != 0 && nic.model != NicConfig::Model::Virtio)
      return fail(ErrorKind::Usage, "port=: an e1000 is no card of PCI Express: leave it out, or use model=virtio");
    TRY(take(nic.port));
  }
  return {};
}

// What a machine has for drives that need no driver of virtio's, in the order in which they are filled. A disk is the first channel's
// first if it can; a CD the second channel's, where systems of old look for it.
struct AtaPlaces {
  const char* name;
  std::vector<unsigned> disks, optical;
};
AtaPlaces ata_places(Kind kind) {
  if (kind == Kind::Q35) return {.name = "SATA", .disks = {0, 1, 3, 4, 5, 2}, .optical = {2, 3, 4, 5, 1, 0}};
  return {.name = "IDE", .disks = {0, 1, 3, 2}, .optical = {2, 3, 1, 0}};
}

Result<> place_floppy(Kind kind, DriveConfig& drive, unsigned place) {
  constexpr unsigned kPlaces = 2;
  if (kind == Kind::Direct)
    return fail(ErrorKind::Usage, "{}: the machine direct has no floppy drives: use --machine pc or q35", drive.file);
  if (drive.interface != DriveInterface::Automatic)
    return fail(ErrorKind::Usage, "{}: a floppy drive has a controller of its own: leave if= out", drive.file);
  if (place >= kPlaces) return fail(ErrorKind::Usage, "{}: a machine has at most {} floppy drives", drive.file, kPlaces);
  drive.interface = DriveInterface::Floppy;
  drive.place = place;
  return {};
}

}  // namespace

Result<> place_drives(Config& config) {
  const AtaPlaces places = ata_places(config.kind());
  std::vector<bool> taken(places.disks.size());
  unsigned number = 0, on_virtio = 0, floppies = 0;
  for (DriveConfig& drive : config.drives) {
    drive.number = number++;
    if (drive.media == Media::Floppy) {
      TRY(place_floppy(config.kind(), drive, floppies++));
      continue;
    }
    if (drive.interface == DriveInterface::Automatic)
      drive.interface = config.kind() == Kind::Direct ? DriveInterface::Virtio : DriveInterface::Ata;
    if (drive.media == Media::Optical) drive.disk.read_only = true;
    if (drive.interface != DriveInterface::Ata) {
      // Each is a device of PCI bus 0.
      const unsigned most = config.kind() == Kind::Direct ? kMaximumDrives : kMaximumVirtioDrivesWithFirmware;
      if (drive.port == 0 && ++on_virtio > most)
        return fail(ErrorKind::Usage, "{}: this machine has places for at most {} disks on virtio", drive.file, most);
      continue;
    }
    if (config.kind() == Kind::Direct)
      return fail(ErrorKind::Usage, "{}: the machine direct has no IDE and no SATA: use if=virtio, or --machine pc or q35", drive.file);
    const auto& order = drive.media == Media::Optical ? places.optical : places.disks;
    const auto place = std::ranges::find_if(order, [&](unsigned which) { return !taken[which]; });
    if (place == order.end())
      return fail(ErrorKind::Usage, "{}: {} has places for {} drives: connect it with --drive file={},if=virtio", drive.file, places.name,
                  order.size(), drive.file);
    drive.place = *place;
    taken[*place] = true;
  }
  return {};
}

Result<> validate(const Config& config) {
  if (!config.machine && config.kernel.empty() && config.drives.empty())
    return fail(ErrorKind::Usage, "nothing to boot from: give a DISK, --cdrom FILE, or --kernel FILE (a bzImage or an ELF vmlinux)");
  if (config.kind() == Kind::Direct && config.kernel.empty())
    return fail(ErrorKind::Usage, "no kernel given: use --kernel FILE (a bzImage or an ELF vmlinux)");
  if (config.kind() == Kind::Direct && !config.firmware.empty())
    return fail(ErrorKind::Usage, "--machine direct starts its kernel without firmware: leave --firmware out, or --machine");
  if (config.kernel.empty() && (!config.initrd.empty() || !config.append.empty()))
    return fail(ErrorKind::Usage, "--initrd and --append go with --kernel FILE");
  if (!config.uefi_vars.empty() && config.firmware_name() != "uefi") return fail(ErrorKind::Usage, "--uefi-vars goes with --firmware uefi");
  const std::string shown_by = config.display.substr(0, config.display.find('='));
  if (config.display != "none" && shown_by != "vnc" && shown_by != "web")
    return fail(ErrorKind::Usage, "unknown display '{}': use none, vnc[=ADDRESS] or web[=ADDRESS]", config.display);
  if (config.display != "none" && (config.kind() == Kind::Direct || !config.vga))
    return fail(ErrorKind::Usage, "--display {}: the machine has no graphics card: {}", config.display,
                config.kind() == Kind::Direct ? "--machine direct has its console on the serial port" : "leave --vga none out");
  if (config.usb_keyboard && (config.kind() == Kind::Direct || !config.vga))
    return fail(ErrorKind::Usage, "--keyboard usb: the machine has no screen to type at: {}",
                config.kind() == Kind::Direct ? "--machine direct has its console on the serial port" : "leave --vga none out");
  if (config.display == "none" && !config.vnc_password_file.empty())
    return fail(ErrorKind::Usage, "--vnc-password goes with --display vnc or web");
  if (const auto layout = display::Layout::named(config.keymap); !layout)
    return fail(ErrorKind::Usage, "--keymap: {}", layout.error().message);
  if (config.memory < kMinimumMemory)
    return fail(ErrorKind::Usage, "-m {} KiB is too little memory: a machine has at least {} MiB", config.memory >> 10,
                kMinimumMemory / kMiB);
  if (config.memory > kMaximumMemory) return fail(ErrorKind::Usage, "-m: a machine has at most {} GiB", kMaximumMemory / kGiB);
  if (config.memory % kMiB != 0) return fail(ErrorKind::Usage, "-m must be a whole number of MiB");
  if (config.vcpus == 0) return fail(ErrorKind::Usage, "-c 0: a machine has at least one vCPU");
  if (config.vcpus > kMaximumVcpus) return fail(ErrorKind::Usage, "-c {}: a machine has at most {} vCPUs", config.vcpus, kMaximumVcpus);
  if (config.drives.size() > kMaximumDrives)
    return fail(ErrorKind::Usage, "{} drives: a machine has at most {}", config.drives.size(), kMaximumDrives);
  if (config.nics.size() > kMaximumNics)
    return fail(ErrorKind::Usage, "{} network cards: a machine has at most {}", config.nics.size(), kMaximumNics);
  for (const DriveConfig& drive : config.drives)
    if (drive.transitional && drive.interface != DriveInterface::Virtio)
      return fail(ErrorKind::Usage, "{}: legacy= goes with if=virtio: leave it out, or connect the drive so", drive.file);
  TRY(check_root_ports(config));
  TRY(check_boot_order(config));
  if (config.engine != "auto" && config.engine != "kvm" && config.engine != "soft")
    return fail(ErrorKind::Usage, "unknown engine '{}': use auto, kvm or soft", config.engine);
  if (config.cpu != "host") return fail(ErrorKind::Usage, "unknown processor model '{}': use host", config.cpu);
  if (config.serial == "stdio" && config.console == "stdio")
    return fail(ErrorKind::Usage, "--serial stdio and --console stdio: only one can have this terminal");
  if (config.balloon_keeps != 0 && (config.balloon_keeps < kMinimumMemory || config.balloon_keeps > config.memory))
    return fail(ErrorKind::Usage, "--balloon {}M: give what the guest is to keep, between {}M and its whole memory ({}M)",
                config.balloon_keeps / kMiB, kMinimumMemory / kMiB, config.memory / kMiB);
  if (config.virtual_clock && config.engine == "kvm")
    return fail(ErrorKind::Usage, "--virtual-clock needs --engine soft: the kernel's engine runs in real time");
  if (!config.jitdump.empty() && config.engine == "kvm")
    return fail(ErrorKind::Usage, "--jitdump needs --engine soft: the kernel's engine translates nothing");
  if (!config.profile.empty() && config.engine == "kvm")
    return fail(ErrorKind::Usage, "--profile needs --engine soft: for the kernel's engine there is perf kvm");
  if (!config.state_trace.empty() && !config.virtual_clock) return fail(ErrorKind::Usage, "--state-trace needs --virtual-clock");
  if (config.virtual_clock && config.vcpus != 1) return fail(ErrorKind::Usage, "--virtual-clock works with one vCPU only (-c 1)");
  if (config.name.find_first_of("\n\t\r") != std::string::npos) return fail(ErrorKind::Usage, "--name must be one line");
  return {};
}

namespace {

// "MemAvailable:   123 kB" → bytes.
std::optional<uint64_t> meminfo_field(const std::string& meminfo, const std::string& name) {
  size_t at = meminfo.find(name + ":");
  if (at == std::string::npos) return std::nullopt;
  at = meminfo.find_first_of("0123456789", at);
  if (at == std::string::npos) return std::nullopt;
  uint64_t kib = 0;
  std::from_chars(meminfo.data() + at, meminfo.data() + meminfo.size(), kib);
  return kib << 10;
}

}  // namespace

Result<> check_host_memory(uint64_t bytes, const std::string& meminfo, const std::string& overcommit) {
  const auto available = meminfo_field(meminfo, "MemAvailable");
  const auto total = meminfo_field(meminfo, "MemTotal");
  if (!available || !total) return {};  // a host that does not say
  const uint64_t swap_total = meminfo_field(meminfo, "SwapTotal").value_or(0);
  const uint64_t swap_free = meminfo_field(meminfo, "SwapFree").value_or(0);
  if (bytes > *total + swap_total)
    return fail(ErrorKind::Usage, "-m {} MiB is more than this host has ({} MiB of memory and {} MiB of swap): give the guest less",
                bytes / kMiB, *total / kMiB, swap_total / kMiB);
  // vm.overcommit_memory 1: the administrator lets processes reserve what is not there now.
  const bool always_overcommit = !overcommit.empty() && overcommit[0] == '1';
  if (bytes > *available + swap_free && !always_overcommit)
    return fail(ErrorKind::Usage,
                "-m {} MiB does not fit: the host has {} MiB available now. Give the guest less, end other programs, or allow "
                "overcommit (sysctl vm.overcommit_memory=1)",
                bytes / kMiB, (*available + swap_free) / kMiB);
  return {};
}

}  // namespace lodge::machine
