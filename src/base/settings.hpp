// Option values that are lists of settings: "file=disk.qcow2,readonly=on".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace lodge {

struct Setting {
  std::string name;   // before the "="; empty where there is none
  std::string value;  // behind it
};

// At its commas; two of them stand for one in a value, as QEMU has it. Nothing of an empty text.
[[nodiscard]] std::vector<Setting> split_settings(std::string_view text);

// "on" or "yes", "off" or "no"; ErrorKind::Usage otherwise.
[[nodiscard]] Result<bool> parse_switch(std::string_view text);

}  // namespace lodge
