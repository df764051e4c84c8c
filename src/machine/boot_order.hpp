// In which order firmware is to try what a machine can be booted from: what the person says of it, and how firmware is told.
//
// Pure functions. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace lodge::machine {

struct Config;

struct BootOrder {
  enum class Kind : uint8_t { Floppy, Disk, Optical, Network };
  struct Entry {
    Kind kind;
    std::optional<unsigned> number;  // among those of its kind; nothing: all of them
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> entries;  // what is in none of them comes after all of them, as firmware has it
  bool menu = false;           // firmware asks, before it goes on by itself

  [[nodiscard]] bool empty() const { return entries.empty() && !menu; }
  [[nodiscard]] bool names(Kind kind) const;
};

// "cd,disk1,network" and the word "menu". ErrorKind::Usage with what is wrong.
[[nodiscard]] Result<BootOrder> parse_boot_order(std::string_view text);

// ErrorKind::Usage where the order names what the machine has not.
[[nodiscard]] Result<> check_boot_order(const Config& config);

// fw_cfg's file "bootorder": the Open Firmware path of each device on a line, as SeaBIOS and OVMF look for them (SeaBIOS, src/boot.c;
// OVMF, QemuBootOrderLib). Of a configuration whose drives have their places.
[[nodiscard]] std::string boot_order_file(const Config& config);

}  // namespace lodge::machine
