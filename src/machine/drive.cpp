#include "machine/drive.hpp"

#include "base/log.hpp"

namespace lodge::machine {

Result<std::unique_ptr<Drive>> Drive::open(const DriveConfig& config, unsigned number) {
  std::unique_ptr<Drive> drive(new Drive(config));
  drive->thread_ = TRY(devices::IoThread::start(fmt::format("drive{}", number)));
  block::ImageOptions options = config.image;
  options.read_only = options.read_only || config.disk.read_only;
  drive->node_ = TRY(drive->thread_->call([&] { return block::open_image(drive->thread_->context(), config.file, options); }));
  const uint64_t size = drive->node_->size();
  if (size < block::kSector) return fail(ErrorKind::Usage, "{}: a disk has at least {} bytes", config.file, block::kSector);
  if (size % block::kSector != 0)
    log::warning("{}: its last {} bytes are no whole sector; the guest does not see them", config.file, size % block::kSector);
  drive->disk_ =
      std::make_unique<devices::storage::Disk>(fmt::format("drive {}", config.file), *drive->thread_, *drive->node_, config.disk);
  return drive;
}

Drive::~Drive() {
  if (!node_) return;
  if (disk_) thread_->call([this] { return disk_->settle(); });
  if (const auto closed = thread_->call([this] { return node_->close(); }); !closed) log::error("{}", closed.error().message);
  thread_->call([this]() -> block::Task<bool> {
    node_.reset();
    co_return true;
  });
}

}  // namespace lodge::machine
