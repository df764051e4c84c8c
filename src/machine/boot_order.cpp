#include "machine/boot_order.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "devices/chipset/i440fx_board.hpp"
#include "devices/chipset/q35_board.hpp"
#include "machine/config.hpp"
#include "machine/kernel_rom.hpp"
#include "machine/pci_places.hpp"

namespace lodge::machine {

namespace {

using Kind = BootOrder::Kind;

struct Word {
  std::string_view name;
  Kind kind;
  std::string_view what;
};
constexpr auto kWords = std::to_array<Word>({{"floppy", Kind::Floppy, "floppy drives"},
                                             {"disk", Kind::Disk, "disks"},
                                             {"cd", Kind::Optical, "CD drives"},
                                             {"network", Kind::Network, "network cards"}});

const Word& word_of(Kind kind) { return *std::ranges::find(kWords, kind, &Word::kind); }

Result<BootOrder::Entry> parse_entry(std::string_view text) {
  const size_t digits = std::min(text.find_first_of("0123456789"), text.size());
  const auto word = std::ranges::find(kWords, text.substr(0, digits), &Word::name);
  unsigned number = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + digits, end, number);
  const bool has_number = digits < text.size();
  if (word == kWords.end() || (has_number && (parsed.ec != std::errc() || parsed.ptr != end)))
    return fail(ErrorKind::Usage,
                "'{}' is nothing to boot from: use disk, cd, floppy or network, or one of them by its number (disk1, cd0)", text);
  return BootOrder::Entry{.kind = word->kind, .number = has_number ? std::optional(number) : std::nullopt};
}

Kind kind_of(Media media) {
  switch (media) {
    case Media::Disk: return Kind::Disk;
    case Media::Optical: return Kind::Optical;
    case Media::Floppy: return Kind::Floppy;
  }
  return Kind::Disk;
}

// Where something sits on PCI: on bus 0, or alone behind a root port.
std::string place_of(std::string_view what, unsigned port, unsigned device) {
  if (port == 0) return fmt::format("/pci@i0cf8/{}@{:x}", what, device);
  const std::string function = port == 1 ? "" : fmt::format(",{:x}", port - 1);
  return fmt::format("/pci@i0cf8/pci-bridge@{:x}{}/{}@0", devices::chipset::Q35Board::kRootPortDevice, function, what);
}

// The paths of all that is of this kind, in its own order.
std::vector<std::string> paths(const Config& config, Kind kind) {
  const bool q35 = config.kind() == machine::Kind::Q35;
  const PciPlaces places = pci_places(config.kind());
  std::vector<std::string> all;
  if (kind == Kind::Network) {
    for (unsigned i = 0; i < config.nics.size(); ++i)
      all.push_back(place_of("ethernet", config.nics[i].port, places.first_nic + i) + "/ethernet-phy@0");
    return all;
  }
  unsigned on_virtio = 0;
  for (const DriveConfig& drive : config.drives) {
    const unsigned virtio_number = drive.interface == DriveInterface::Virtio && drive.port == 0 ? on_virtio++ : 0;
    if (kind_of(drive.media) != kind) continue;
    if (drive.interface == DriveInterface::Floppy)
      all.push_back(fmt::format("/pci@i0cf8/isa@{:x}/fdc@03f0/floppy@{:x}",
                                q35 ? devices::chipset::Q35Board::kLpcDevice : devices::chipset::I440FxBoard::kIsaDevice, drive.place));
    else if (drive.interface == DriveInterface::Virtio)
      all.push_back(place_of("scsi", drive.port, places.first_drive + virtio_number) + "/disk@0,0");
    else if (q35)
      all.push_back(fmt::format("/pci@i0cf8/pci8086,2922@{:x},{:x}/drive@{:x}/disk@0", devices::chipset::Q35Board::kLpcDevice,
                                devices::chipset::Q35Board::kSataFunction, drive.place));
    else
      all.push_back(fmt::format("/pci@i0cf8/ide@{:x},{:x}/drive@{:x}/disk@{:x}", devices::chipset::I440FxBoard::kIsaDevice,
                                devices::chipset::I440FxBoard::kIdeFunction, drive.place / 2, drive.place % 2));
  }
  return all;
}

}  // namespace

bool BootOrder::names(Kind kind) const { return std::ranges::find(entries, kind, &Entry::kind) != entries.end(); }

Result<BootOrder> parse_boot_order(std::string_view text) {
  BootOrder order;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view word = text.substr(at, comma - at);
    at = comma + 1;
    if (word == "menu") {
      order.menu = true;
      continue;
    }
    const BootOrder::Entry entry = TRY(parse_entry(word));
    if (std::ranges::find(order.entries, entry) != order.entries.end()) return fail(ErrorKind::Usage, "'{}' is there twice", word);
    order.entries.push_back(entry);
  }
  return order;
}

Result<> check_boot_order(const Config& config) {
  if (config.boot.empty()) return {};
  if (config.kind() == machine::Kind::Direct)
    return fail(ErrorKind::Usage, "--boot: this machine starts its kernel without firmware, which would look at disks: leave --boot out");
  for (const BootOrder::Entry& entry : config.boot.entries) {
    const size_t there = paths(config, entry.kind).size();
    if (there > entry.number.value_or(0)) continue;
    const Word& word = word_of(entry.kind);
    if (there == 0) return fail(ErrorKind::Usage, "--boot {}: the machine has no {}", word.name, word.what);
    return fail(ErrorKind::Usage, "--boot {0}{1}: there is no {0}{1}, the last of the machine's {2} is {0}{3}", word.name, *entry.number,
                word.what, there - 1);
  }
  return {};
}

std::string boot_order_file(const Config& config) {
  std::vector<std::string> lines;
  const auto add = [&](const std::string& path) {
    if (std::ranges::find(lines, path) == lines.end()) lines.push_back(path);
  };
  if (!config.kernel.empty() && config.firmware_name() != "uefi") add(std::string(kKernelRomPath));
  for (const BootOrder::Entry& entry : config.boot.entries) {
    const std::vector<std::string> all = paths(config, entry.kind);
    if (entry.number)
      add(all.at(*entry.number));
    else
      std::ranges::for_each(all, add);
  }
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  return text;
}

}  // namespace lodge::machine
