// The formats of floppy disks that PCs know: an image's size says which one it is.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

namespace lodge::devices::floppy {

// Data rates as the controller's registers have them (82077AA, table 2-5).
enum Rate : uint8_t { k500Kbps = 0, k300Kbps = 1, k250Kbps = 2, k1Mbps = 3 };

struct Format {
  uint8_t cylinders, heads, sectors;  // sectors of 512 bytes a track
  Rate rate;
  uint8_t drive;  // the type of drive that it is for, as the CMOS memory has it
  [[nodiscard]] constexpr uint32_t size() const { return uint32_t{cylinders} * heads * sectors; }  // in sectors
};

// Types of drives: 1.2 MB (5.25 inches), 1.44 MB and 2.88 MB (3.5 inches).
constexpr uint8_t kDrive1200 = 2, kDrive1440 = 4, kDrive2880 = 5;

// In the order of their sizes. Disks of 5.25 inches with 40 cylinders turn faster in a drive of 1.2 MB: 300 kbit/s.
constexpr std::array<Format, 10> kFormats{{{40, 1, 8, k300Kbps, kDrive1200},
                                           {40, 1, 9, k300Kbps, kDrive1200},
                                           {40, 2, 8, k300Kbps, kDrive1200},
                                           {40, 2, 9, k300Kbps, kDrive1200},
                                           {80, 2, 9, k250Kbps, kDrive1440},
                                           {80, 2, 15, k500Kbps, kDrive1200},
                                           {80, 2, 18, k500Kbps, kDrive1440},
                                           {80, 2, 21, k500Kbps, kDrive1440},
                                           {82, 2, 21, k500Kbps, kDrive1440},
                                           {80, 2, 36, k1Mbps, kDrive2880}}};
constexpr uint64_t kMostSectors = kFormats.back().size();

// That of an image of so many sectors: the smallest which holds it all. What the image does not have is not found on the disk. Nothing:
// no floppy disk is that large.
[[nodiscard]] constexpr std::optional<Format> format_of(uint64_t sectors) {
  const auto* const found = std::ranges::find_if(kFormats, [&](const Format& format) { return format.size() >= sectors; });
  return found == kFormats.end() ? std::nullopt : std::optional(*found);
}

}  // namespace lodge::devices::floppy
