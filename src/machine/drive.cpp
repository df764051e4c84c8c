#include "machine/drive.hpp"

#include "base/log.hpp"
#include "devices/floppy/format.hpp"

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
  if (size < block::kSector) return fail(ErrorKind::Usage, "{}: a disk has at least {} bytes", config_.file, block::kSector);
  if (config_.media == Media::Floppy && size > devices::floppy::kMostSectors * block::kSector)
    return fail(ErrorKind::Usage, "{}: a floppy disk has at most {} KiB: is it a disk or a CD?", config_.file,
                devices::floppy::kMostSectors * block::kSector / 1024);
  if (size % block::kSector != 0)
    log::warning("{}: its last {} bytes are no whole sector; the guest does not see them", config_.file, size % block::kSector);
  disk_ = std::make_unique<devices::storage::Disk>(fmt::format("drive {}", config_.file), *thread_, *node_, config_.disk);
  return {};
}

Result<> Drive::insert(const std::string& file) {
  take_out();
  config_.file = file;
  const Result<> opened = open_image();
  if (!opened) take_out();
  return opened;
}

Drive::~Drive() { take_out(); }

void Drive::take_out() {
  config_.file.clear();
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
