#include "control/run/drive_option.hpp"

#include <array>
#include <vector>

#include "control/run/setting_table.hpp"
#include "devices/pci/bridge.hpp"

namespace lodge::control {

namespace {

using devices::storage::OnError;
using devices::virtio::BlockOptions;
using machine::DriveConfig;
using Row = SettingRow<DriveConfig>;

Result<OnError> parse_on_error(std::string_view value, bool write) {
  if (value == "report") return OnError::Report;
  if (value == "stop") return OnError::Stop;
  if (value == "ignore") return OnError::Ignore;
  if (value == "enospc" && write) return OnError::StopOnSpace;
  return fail(ErrorKind::Usage, "'{}' is not report, stop{} or ignore", value, write ? ", enospc" : "");
}

constexpr auto kSettings = std::to_array<Row>({
    {"file", "NAME", "the image: a file, a block device, or an NBD export (nbd://..., nbd+unix://...)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       if (value.empty()) return fail(ErrorKind::Usage, "no name of an image");
       drive.file = value;
       return {};
     }},
    {"format", "raw|qcow2", "its format (default: by looking at it)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       drive.image.format = TRY(block::parse_format(value));
       return {};
     }},
    {"snapshot", "on|off", "write to a temporary file that is gone with the machine (default off)",
     [](DriveConfig& drive, std::string_view value) { return set_switch(drive.image.snapshot, value); }},
    {"readonly", "on|off", "the guest can only read (default off)",
     [](DriveConfig& drive, std::string_view value) { return set_switch(drive.disk.read_only, value); }},
    {"cache", "writeback|writethrough|none|directsync|unsafe", "the host's page cache and flushes, as QEMU names them (default writeback)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       drive.image.cache = TRY(block::parse_cache(value));
       return {};
     }},
    {"discard", "unmap|ignore", "what the guest discards is given back to the host, or not (default unmap)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       const bool unmap = value == "unmap" || value == "on";
       if (!unmap && value != "ignore" && value != "off") return fail(ErrorKind::Usage, "'{}' is neither unmap nor ignore", value);
       drive.image.discard = drive.disk.discard = unmap;
       return {};
     }},
    {"werror", "enospc|report|stop|ignore",
     "when a write fails: the machine stands still for lack of space (the default), the guest sees it, the machine stands still, nothing",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       drive.disk.on_write_error = TRY(parse_on_error(value, true));
       return {};
     }},
    {"rerror", "report|stop|ignore", "the same for reads (default report)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       drive.disk.on_read_error = TRY(parse_on_error(value, false));
       return {};
     }},
    {"serial", "TEXT", "the disk's serial number, at most 20 characters (/dev/disk/by-id/virtio-TEXT)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       if (value.size() > 20) return fail(ErrorKind::Usage, "'{}' has more than 20 characters", value);
       drive.disk.serial = value;
       return {};
     }},
    {"queues", "NUMBER", "virtqueues, 1 to 64 (default 1)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       drive.virtio.queues = TRY(parse_count(value, BlockOptions::kMostQueues));
       return {};
     }},
    {"packed", "on|off", "offer packed virtqueues (default off)",
     [](DriveConfig& drive, std::string_view value) { return set_switch(drive.packed, value); }},
    {"legacy", "on|off", "with if=virtio: the disk can be used by drivers older than virtio 1.0 as well (default off)",
     [](DriveConfig& drive, std::string_view value) { return set_switch(drive.transitional, value); }},
    {"port", "NUMBER", "with --machine q35 and if=virtio: behind this PCI Express root port, 1 to 6, and not on bus 0",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       drive.port = TRY(parse_count(value, devices::pci::RootPort::kMost));
       return {};
     }},
    {"if", "ide|sata|virtio", "how the drive is connected; ide and sata: the one that the machine has (default: that, else virtio)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       // Either name stands for what the machine has.
       const bool ata = value == "ide" || value == "sata";
       if (value != "virtio" && !ata) return fail(ErrorKind::Usage, "there is no interface '{}': use ide, sata or virtio", value);
       drive.interface = ata ? machine::DriveInterface::Ata : machine::DriveInterface::Virtio;
       return {};
     }},
    {"media", "disk|cdrom|floppy", "what the image is of (default disk)",
     [](DriveConfig& drive, std::string_view value) -> Result<> {
       if (value != "disk" && value != "cdrom" && value != "floppy")
         return fail(ErrorKind::Usage, "'{}' is no medium: use disk, cdrom or floppy", value);
       drive.media = value == "cdrom" ? machine::Media::Optical : value == "floppy" ? machine::Media::Floppy : machine::Media::Disk;
       return {};
     }},
    {"check", "on|off", "with media=cdrom: only images with a file system of CDs on them, ISO 9660 or UDF (default on)",
     [](DriveConfig& drive, std::string_view value) { return set_switch(drive.check, value); }},
});

}  // namespace

Result<DriveConfig> parse_drive(std::string_view text) {
  DriveConfig drive;
  const std::vector<Setting> settings = split_settings(text);
  TRY(apply_settings(std::span<const Row>(kSettings), std::span<const Setting>(settings), drive, "file=NAME"));
  if (drive.file.empty()) return fail(ErrorKind::Usage, "no image given: file=NAME is missing");
  if (!drive.check && drive.media != machine::Media::Optical)
    return fail(ErrorKind::Usage, "check=off is of CDs: give media=cdrom as well, or leave it out");
  if (drive.image.snapshot && drive.disk.read_only)
    return fail(ErrorKind::Usage, "snapshot=on and readonly=on do not go together: give one of them");
  return drive;
}

DriveConfig plain_drive(std::string_view path) {
  DriveConfig drive;
  drive.file = path;
  return drive;
}

std::string drive_help() { return "\nSettings of --drive:\n" + settings_help<DriveConfig>(kSettings); }

}  // namespace lodge::control
