#include "devices/virtio/block/block.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lodge::devices::virtio {

namespace {

// 5.2.3.
constexpr unsigned kSegMax = 2, kReadOnly = 5, kBlkSize = 6, kFlush = 9, kTopology = 10, kConfigWce = 11, kMultiQueue = 12, kDiscard = 13,
                   kWriteZeroes = 14;
// 5.2.4: struct virtio_blk_config.
constexpr unsigned kCapacityAt = 0, kSegMaxAt = 12, kBlkSizeAt = 20, kPhysicalExponentAt = 24, kMinimumIoAt = 26, kOptimalIoAt = 28,
                   kWritebackAt = 32, kQueuesAt = 34, kDiscardSectorsAt = 36, kDiscardSegmentsAt = 40, kDiscardAlignmentAt = 44,
                   kZeroesSectorsAt = 48, kZeroesSegmentsAt = 52, kZeroesMayUnmapAt = 56;
// 5.2.6: types, states.
constexpr uint32_t kIn = 0, kOut = 1, kFlushType = 4, kGetId = 8, kDiscardType = 11, kWriteZeroesType = 13;
constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2;
constexpr uint64_t kHeaderBytes = 16, kSerialBytes = 20;

struct RangeSegment {  // struct virtio_blk_discard_write_zeroes
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
constexpr uint32_t kUnmap = 1;
constexpr uint32_t kMostRangeSegments = 64, kMostRangeSectors = (uint32_t{1} << 31) / block::kSector;

}  // namespace

struct Block::Work {
  unsigned queue = 0;
  Chain chain;
  block::Buffers in, out;  // what the device writes, what it reads: without header and status
  uint64_t written = 0;    // bytes of `in`
};

Block::Block(storage::Disk& disk, const BlockOptions& options)
    : Device(Type::Block, disk.name(), disk.thread(), std::vector<uint16_t>(options.queues, options.queue_entries)),
      disk_(disk),
      interrupt_due_(options.queues) {
  const block::Limits limits = disk.limits();
  const bool read_only = disk.options().read_only, discard = disk.options().discard;
  const auto put = [this](unsigned at, auto value) { std::memcpy(&config_[at], &value, sizeof value); };
  features_ = feature(kSegMax) | feature(kBlkSize) | feature(kFlush) | feature(kTopology) | feature(kConfigWce) | feature(kMultiQueue);
  put(kCapacityAt, disk.sectors());
  // Besides header and status.
  put(kSegMaxAt, uint32_t{options.queue_entries} - 2);
  const uint32_t block_size = std::clamp<uint32_t>(limits.request_alignment, block::kSector, 4096);
  put(kBlkSizeAt, block_size);
  const uint32_t physical = std::max<uint32_t>(block_size, 4096);
  put(kPhysicalExponentAt, static_cast<uint8_t>(std::countr_zero(physical / block_size)));
  put(kMinimumIoAt, static_cast<uint16_t>(physical / block_size));
  put(kOptimalIoAt, std::max(limits.optimal, physical) / block_size);
  put(kQueuesAt, options.queues);
  if (read_only) features_ |= feature(kReadOnly);
  if (discard && !read_only) {
    features_ |= feature(kDiscard);
    put(kDiscardSectorsAt, kMostRangeSectors);
    put(kDiscardSegmentsAt, kMostRangeSegments);
    put(kDiscardAlignmentAt, std::max<uint32_t>(limits.optimal, block_size) / static_cast<uint32_t>(block::kSector));
  }
  if (!read_only) {
    features_ |= feature(kWriteZeroes);
    put(kZeroesSectorsAt, kMostRangeSectors);
    put(kZeroesSegmentsAt, kMostRangeSegments);
    put(kZeroesMayUnmapAt, static_cast<uint8_t>(discard));
  }
}

Block::~Block() = default;

// --- Configuration

void Block::read_config(uint64_t offset, std::span<uint8_t> into) const {
  for (size_t i = 0; i < into.size(); ++i) {
    const uint64_t at = offset + i;
    into[i] = at == kWritebackAt ? writeback_.load() : at < config_.size() ? config_[at] : 0;
  }
}

void Block::write_config(uint64_t offset, std::span<const uint8_t> from) {
  if (offset <= kWritebackAt && kWritebackAt - offset < from.size()) writeback_ = from[kWritebackAt - offset] != 0;
}

// 5.2.5.2: without either feature the driver has no way to make writes last, so each of them does.
void Block::started() {
  if (!has(kConfigWce)) writeback_ = has(kFlush);
}

void Block::stopped() { writeback_ = true; }

// --- Requests

void Block::serve(unsigned queue) {
  const auto start = [this, queue](std::unique_ptr<Work> work) {
    work->queue = queue;
    work->in = work->out = {};
    work->written = 0;
    for (const iovec& piece : work->chain.readable()) work->out.append(piece.iov_base, piece.iov_len);
    for (const iovec& piece : work->chain.writable()) work->in.append(piece.iov_base, piece.iov_len);
    block::spawn(carry_out(std::move(work)));
  };
  do {
    suppress_notifications(queue);
    for (;;) {
      std::unique_ptr<Work> work;
      if (spare_.empty()) {
        work = std::make_unique<Work>();
      } else {
        work = std::move(spare_.back());
        spare_.pop_back();
      }
      if (!take(queue, work->chain)) {
        spare_.push_back(std::move(work));
        break;
      }
      start(std::move(work));
    }
  } while (allow_notifications(queue));
  // What was done on the spot.
  if (interrupt_due_[queue]) {
    interrupt_due_[queue] = false;
    interrupt(queue);
  }
}

block::Task<> Block::carry_out(std::unique_ptr<Work> work) {
  uint8_t status = kIoError;
  // 5.2.6.4.1: the header and the byte for the status are the least; without them there is no way to say what went wrong.
  if (work->chain.readable_bytes() < kHeaderBytes || work->chain.writable_bytes() < 1)
    broken("a request without room for header and status");
  else
    status = co_await perform(*work);
  const uint64_t written = work->written;
  finish(std::move(work), status, written);
}

void Block::finish(std::unique_ptr<Work> work, uint8_t status, uint64_t data_written) {
  const unsigned queue = work->queue;
  hold(queue);
  const uint64_t room = work->chain.writable_bytes();
  if (room != 0) {
    const iovec& last = work->chain.writable().back();
    static_cast<uint8_t*>(last.iov_base)[last.iov_len - 1] = status;
  }
  // What was written ends with the status only if all before it was; otherwise it is at least the data (2.7.8.2).
  give_back(queue, work->chain, data_written + 1 == room ? room : std::min(data_written, room));
  spare_.push_back(std::move(work));
  if (interrupt_due_[queue]) return release(queue);
  interrupt_due_[queue] = true;
  block::spawn(interrupt_later(queue));
}

// One interrupt for all that ends in one turn of the loop.
block::Task<> Block::interrupt_later(unsigned queue) {
  co_await block::IoContext::yield();
  if (interrupt_due_[queue]) {
    interrupt_due_[queue] = false;
    interrupt(queue);
  }
  release(queue);
}

block::Task<uint8_t> Block::perform(Work& work) {
  struct Header {
    uint32_t type, reserved;
    uint64_t sector;
  } header{};
  static_assert(sizeof header == kHeaderBytes);
  work.out.copy_to(0, &header, sizeof header);
  switch (header.type) {
    case kIn:
    case kOut: co_return co_await transfer(work, header.type == kOut);
    case kFlushType: {
      block::Request request(block::Operation::Flush, 0, 0);
      co_return co_await submit(request);
    }
    case kGetId: co_return tell_serial(work);
    case kDiscardType:
      if (!has(kDiscard)) co_return kUnsupported;
      co_return co_await change_ranges(work, false);
    case kWriteZeroesType:
      if (!has(kWriteZeroes)) co_return kUnsupported;
      co_return co_await change_ranges(work, true);
    default: co_return kUnsupported;
  }
}

block::Task<uint8_t> Block::transfer(Work& work, bool write) {
  uint64_t sector = 0;
  work.out.copy_to(8, &sector, sizeof sector);
  const uint64_t bytes = write ? work.out.size() - kHeaderBytes : work.in.size() - 1;
  if (bytes % block::kSector != 0 || !disk_.in_range(sector, bytes) || (write && disk_.options().read_only)) co_return kIoError;
  if (bytes == 0) co_return kOk;
  block::Request request(write ? block::Operation::Write : block::Operation::Read, sector * block::kSector,
                         write ? work.out.slice(kHeaderBytes, bytes) : work.in.slice(0, bytes));
  request.fua = write && !writeback_.load();
  const uint8_t status = co_await submit(request);
  if (!write && status == kOk) work.written = bytes;
  co_return status;
}

uint8_t Block::tell_serial(Work& work) const {
  std::array<uint8_t, kSerialBytes> serial{};
  std::copy_n(disk_.options().serial.begin(), std::min<size_t>(disk_.options().serial.size(), serial.size()), serial.begin());
  work.written = std::min<uint64_t>(serial.size(), work.in.size() - 1);
  work.in.copy_from(0, serial.data(), work.written);
  return kOk;
}

// 5.2.6.2: discard and write zeroes come with a list of ranges.
block::Task<uint8_t> Block::change_ranges(Work& work, bool zeroes) {
  const uint64_t bytes = work.out.size() - kHeaderBytes;
  const uint64_t count = bytes / sizeof(RangeSegment);
  if (disk_.options().read_only || bytes % sizeof(RangeSegment) != 0 || count == 0 || count > kMostRangeSegments) co_return kIoError;
  std::vector<RangeSegment> segments(count);
  work.out.copy_to(kHeaderBytes, segments.data(), bytes);
  for (const RangeSegment& segment : segments) {
    if ((segment.flags & ~kUnmap) != 0 || (!zeroes && segment.flags != 0)) co_return kUnsupported;
    if (segment.sectors > kMostRangeSectors || !disk_.in_range(segment.sector, segment.sectors * block::kSector)) co_return kIoError;
  }
  for (const RangeSegment& segment : segments) {
    if (segment.sectors == 0) continue;
    block::Request request(zeroes ? block::Operation::WriteZeroes : block::Operation::Discard, segment.sector * block::kSector,
                           segment.sectors * block::kSector);
    request.unmap = zeroes && (segment.flags & kUnmap) != 0 && disk_.options().discard;
    request.fua = zeroes && !writeback_.load();
    const uint8_t status = co_await submit(request);
    if (status != kOk) co_return status;
  }
  co_return kOk;
}

block::Task<uint8_t> Block::submit(block::Request& request) {
  const bool done = co_await disk_.perform(request);
  co_return done ? kOk : kIoError;
}

}  // namespace lodge::devices::virtio
