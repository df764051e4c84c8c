// The value of --drive, and a DISK without an option.
#pragma once

#include <string>
#include <string_view>

#include "machine/drive.hpp"

namespace lodge::control {

// "file=disk.qcow2,format=qcow2,...". ErrorKind::Usage names the setting that is wrong, and what would be right.
Result<machine::DriveConfig> parse_drive(std::string_view text);
// A path, as it stands.
[[nodiscard]] machine::DriveConfig plain_drive(std::string_view path);

// The settings with their meaning, for people.
[[nodiscard]] std::string drive_help();

}  // namespace lodge::control
