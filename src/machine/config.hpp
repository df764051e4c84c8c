// What a machine is to be: plain data, checked by validate(), turned into objects only by machine/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "machine/boot_order.hpp"
#include "machine/drive.hpp"
#include "machine/nic.hpp"

namespace lodge::machine {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kMinimumMemory = 16 * kMiB;
constexpr uint64_t kMaximumMemory = uint64_t{1} << 40;
constexpr size_t kMaximumDrives = 24, kMaximumVirtioDrivesWithFirmware = 21, kMaximumNics = 4;
constexpr uint32_t kMaximumVcpus = 254;  // 8-bit APIC ids; 0xff is the broadcast

enum class Kind : uint8_t {
  Direct,  // boots a kernel itself: PCI and virtio, no firmware
  Pc,      // Intel's 440FX and PIIX, started by firmware
  Q35,     // Intel's Q35 and ICH9, started by firmware
};

struct Config {
  std::string name;                 // shown by ps as "lodge NAME"
  bool name_is_given = false;       // by the person: it may not be another one
  std::optional<Kind> machine;      // nothing: as kind() has it
  std::string firmware;             // of kinds that have it: "bios", "uefi" or a path; empty: not asked for, and "bios"
  std::string uefi_vars;            // file for the variables of "uefi"; empty: beside the first disk; "none": no file
  std::string kernel;               // path: bzImage or ELF vmlinux; of UEFI an EFI program
  std::string initrd;               // path, or empty
  std::string append;               // the guest kernel's command line
  std::vector<DriveConfig> drives;  // /dev/vda and on
  std::vector<NicConfig> nics;      // in the order of their PCI numbers
  bool no_nics = false;             // asked for in so many words
  BootOrder boot;                   // of machines with firmware; empty: as that has it
  bool snapshot = false;            // of all drives that can be written
  uint64_t memory = kGiB;           // bytes, a multiple of 1 MiB
  uint32_t vcpus = 1;
  std::string engine = "auto";         // auto, kvm, soft
  std::string cpu = "host";            // the processor model
  std::string serial = "stdio";        // stdio, null, file:PATH, unix:PATH
  std::string console = "none";        // virtio console: none, or as `serial`
  bool entropy = true;                 // virtio-rng
  bool balloon = true;                 // virtio-balloon
  uint64_t balloon_keeps = 0;          // bytes that the balloon is to leave to the guest; 0: it starts empty
  bool vga = true;                     // a graphics card, of kinds that have one
  std::string display = "none";        // who sees its screen: none, vnc[=ADDRESS], web[=ADDRESS]
  bool usb_keyboard = false;           // beside the one of the keyboard controller, and in its place while the guest uses it
  std::string keymap = "us";           // of viewers that send characters
  std::string vnc_password_file;       // empty: whoever reaches the port may look
  std::string debug_console = "null";  // ports 0x402 and 0xE9: null, file:PATH
  bool reboot = true;                  // false: a reset ends the process
  bool debug_exit = false;             // a port by which the guest ends it, with an exit code
  bool unpack_natively = true;         // false: a bzImage unpacks itself inside the guest
  uint64_t watch_ns = 2'000'000'000;   // how often the vCPUs are looked at, to find a guest that is stuck for good
  uint64_t code_cache = 0;             // soft engine only: bytes for translated code; 0: its own choice
  uint32_t soft_tier = 2;              // soft engine only: 1 translates single instructions, 2 whole blocks
  std::string jitdump;                 // soft engine: folder for what perf wants to know of translated code; empty: none
  std::string profile;                 // soft engine: file for a report of where the guest's time went; empty: none
  std::string state_trace;             // soft engine with a virtual clock: file for the processor's states; empty: none
  uint64_t state_trace_every = 1'000'000, state_trace_from = 0;  // instructions
  bool virtual_clock = false;                                    // soft engine only: time is a function of the instructions executed

  // The file that the variables are kept in; empty: none.
  [[nodiscard]] std::string uefi_vars_path() const;
  [[nodiscard]] Kind kind() const { return machine.value_or(kernel.empty() || !firmware.empty() ? Kind::Pc : Kind::Direct); }
  // How many root ports the machine has: as many as it takes for those that are used.
  [[nodiscard]] unsigned root_ports() const;
  [[nodiscard]] std::string firmware_name() const { return firmware.empty() ? "bios" : firmware; }
};

// Gives each drive its number, the interface that the machine has for it, and its place there. ErrorKind::Usage when there is none.
[[nodiscard]] Result<> place_drives(Config& config);

// ErrorKind::Usage with what is wrong and what would be right. Looks at no file.
[[nodiscard]] Result<> validate(const Config& config);

// The host can hold that much beside what it already does; ErrorKind::Usage if not. `meminfo` and
// `overcommit` are the texts of /proc/meminfo and /proc/sys/vm/overcommit_memory.
[[nodiscard]] Result<> check_host_memory(uint64_t bytes, const std::string& meminfo, const std::string& overcommit);

}  // namespace lodge::machine
