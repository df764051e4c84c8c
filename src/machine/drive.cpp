#include "machine/drive.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "devices/floppy/format.hpp"
#include "machine/cd_image.hpp"

namespace lodge::machine {

std::string removable_name(Media media, unsigned number) { return fmt::format("{}{}", media == Media::Floppy ? "floppy" : "cd", number); }

Result<std::unique_ptr<Drive>> Drive::open(const DriveConfig& config, unsigned number) {
  std::unique_ptr<Drive> drive(new Drive(config, number));
  if (!config.file.empty()) TRY(drive->open_image());
  return drive;
}

Result<> Drive::open_image() {
  thread_ = TRY(devices::IoThread::start(fmt::format("drive{}", number_)));
  block::ImageOptions options = config_.image;
  options.read_only = options.read_only || config_.disk.read_only;
  auto node = TRY(thread_->call([&] { return block::open_image(thread_->context(), config_.file, options); }));
  node_ = std::move(node);
  const uint64_t size = node_->size();
  if (config_.media == Media::Optical && config_.check) TRY(check_cd());
  if (size < block::kSector) return fail(ErrorKind::Usage, "{}: a disk has at least {} bytes", config_.file, block::kSector);
  if (config_.media == Media::Floppy && size > devices::floppy::kMostSectors * block::kSector)
    return fail(ErrorKind::Usage, "{}: a floppy disk has at most {} KiB: is it a disk or a CD?", config_.file,
                devices::floppy::kMostSectors * block::kSector / 1024);
  if (size % block::kSector != 0)
    log::warning("{}: its last {} bytes are no whole sector; the guest does not see them", config_.file, size % block::kSector);
  disk_ = std::make_unique<devices::storage::Disk>(fmt::format("drive {}", config_.file), *thread_, *node_, config_.disk);
  return {};
}

Result<> Drive::check_cd() {
  std::vector<uint8_t> begin(std::min(node_->size(), kCdImageBegin));
  TRY(thread_->call([&] { return block::read(*node_, 0, begin.data(), begin.size()); }));
  if (const auto why = no_cd_image(begin))
    return fail(ErrorKind::Usage,
                "{0}: is no image of a CD or DVD: {1}. If the guest shall have it as one all the same, start the machine with --drive "
                "file={0},media=cdrom,check=off",
                config_.file, *why);
  if (const uint64_t volume = cd_volume_bytes(begin); volume > node_->size())
    log::warning("{}: has {} bytes, the file system on it {}: it may be cut off; see to it that it came whole", config_.file, node_->size(),
                 volume);
  return {};
}

Result<> Drive::insert(const std::string& file) {
  // The old image first lets go of its file, which may be the same one.
  std::string old = std::exchange(config_.file, file);
  close();
  const Result<> opened = open_image();
  if (opened) return {};
  close();
  config_.file = std::move(old);
  if (config_.file.empty()) return opened;
  if (const Result<> again = open_image(); !again) {
    log::error("{}", again.error().message);
    take_out();
  }
  return opened;
}

Drive::~Drive() { take_out(); }

void Drive::take_out() {
  config_.file.clear();
  close();
}

void Drive::close() {
  if (!node_) return;
  if (disk_) thread_->call([this] { return disk_->settle(); });
  if (const auto closed = thread_->call([this] { return node_->close(); }); !closed) log::error("{}", closed.error().message);
  thread_->call([this]() -> block::Task<bool> {
    node_.reset();
    co_return true;
  });
  disk_.reset();
  thread_.reset();
}

}  // namespace lodge::machine
