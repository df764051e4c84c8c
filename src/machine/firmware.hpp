// The firmware of a machine: a file from a package or of the user's, read once.
//
// Threads: the main thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "machine/nic.hpp"

namespace lodge::machine {

// The ROM of the graphics card, from the package seabios.
[[nodiscard]] Result<std::vector<uint8_t>> read_vga_rom();
// iPXE for cards of this model, from the package ipxe-qemu; empty where that is not installed.
[[nodiscard]] Result<std::vector<uint8_t>> read_nic_rom(NicConfig::Model model);

class Firmware {
 public:
  // "bios" (SeaBIOS of the package seabios), "uefi" (OVMF of the package ovmf) or a file. ErrorKind::Usage or NotFound: which file, and
  // what to do.
  static Result<Firmware> open(const std::string& name);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::vector<uint8_t>& bytes() const { return bytes_; }
  // What its variables are at first; empty: it has none, or keeps them within itself.
  [[nodiscard]] const std::vector<uint8_t>& variables() const { return variables_; }

 private:
  Firmware() = default;
  std::string path_;
  std::vector<uint8_t> bytes_, variables_;
};

// The image may be a PC's firmware: a whole number of pages from 128 KiB to 16 MiB, with code at the reset vector.
[[nodiscard]] Result<> check_firmware(std::span<const uint8_t> bytes, std::string_view path);

}  // namespace lodge::machine
