#include "machine/firmware.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>

#include "machine/input_file.hpp"

namespace lodge::machine {

namespace {

constexpr size_t kUnit = 4 << 10, kLeast = 128 << 10, kMost = 16 << 20;

// Where distributions put SeaBIOS: Debian's package first.
constexpr std::array<const char*, 4> kBiosFiles{"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
                                                "/usr/share/seabios/bios.bin", "/usr/share/qemu/bios.bin"};

// OVMF in two parts: what it is, and the template of its variables. The 4 MiB ones are those that distributions go on with.
struct UefiFiles {
  const char *code, *variables;
};
constexpr std::array<UefiFiles, 4> kUefiFiles{{{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
                                               {"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
                                               {"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
                                               {"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"}}};

constexpr std::array<const char*, 2> kVgaRoms{"/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin"};

// With parts for BIOS and for UEFI.
constexpr std::array<const char*, 2> kE1000Roms{"/usr/lib/ipxe/qemu/efi-e1000.rom", "/usr/share/qemu/efi-e1000.rom"};
constexpr std::array<const char*, 2> kVirtioRoms{"/usr/lib/ipxe/qemu/efi-virtio.rom", "/usr/share/qemu/efi-virtio.rom"};

// The first of the files that is there; null: none.
const char* find(std::span<const char* const> paths) {
  const auto found = std::ranges::find_if(paths, [](const char* path) { return access(path, F_OK) == 0; });
  return found == paths.end() ? nullptr : *found;
}

}  // namespace

Result<std::vector<uint8_t>> read_vga_rom() {
  const char* path = find(kVgaRoms);
  if (!path) return fail(ErrorKind::NotFound, "the graphics card's ROM ({}) is not there: install the package seabios", kVgaRoms[0]);
  return read_file(path, "graphics ROM");
}

Result<std::vector<uint8_t>> read_nic_rom(NicConfig::Model model) {
  const char* path = find(model == NicConfig::Model::E1000 ? kE1000Roms : kVirtioRoms);
  return path ? read_file(path, "network card's ROM") : std::vector<uint8_t>();
}

Result<> check_firmware(std::span<const uint8_t> bytes, std::string_view path) {
  if (bytes.size() % kUnit != 0 || bytes.size() < kLeast || bytes.size() > kMost)
    return fail(ErrorKind::Usage, "firmware {}: it has {} bytes; a PC's is a whole number of 4 KiB, from 128 KiB to 16 MiB", path,
                bytes.size());
  // The processor begins 16 bytes before the end: nothing but zeros or erased flash there is no code.
  const auto vector = bytes.last(16);
  if (std::ranges::all_of(vector, [&](uint8_t byte) { return byte == vector[0]; }))
    return fail(ErrorKind::Usage, "firmware {}: there is no code where the processor begins, so it is no PC's firmware", path);
  return {};
}

Result<Firmware> Firmware::open(const std::string& name) {
  Firmware firmware;
  firmware.path_ = name;
  if (name == "bios") {
    const char* found = find(kBiosFiles);
    if (!found) return fail(ErrorKind::NotFound, "--firmware bios: there is no SeaBIOS ({}): install the package seabios", kBiosFiles[0]);
    firmware.path_ = found;
  }
  if (name == "uefi") {
    const auto found = std::ranges::find_if(
        kUefiFiles, [](const UefiFiles& files) { return access(files.code, F_OK) == 0 && access(files.variables, F_OK) == 0; });
    if (found == kUefiFiles.end())
      return fail(ErrorKind::NotFound, "--firmware uefi: there is no OVMF ({}): install the package ovmf", kUefiFiles[0].code);
    firmware.path_ = found->code;
    firmware.variables_ = TRY(read_file(found->variables, "firmware"));
  }
  firmware.bytes_ = TRY(read_file(firmware.path_, "firmware"));
  TRY(check_firmware(firmware.bytes_, firmware.path_));
  return firmware;
}

}  // namespace lodge::machine
