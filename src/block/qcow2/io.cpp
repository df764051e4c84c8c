// Requests of the guest.
#include <algorithm>
#include <cerrno>

#include "block/qcow2/compression.hpp"
#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {

namespace {
constexpr size_t kDecompressedClusters = 4;
constexpr uint64_t kZeroChunk = 1 << 20;

uint64_t round_down(uint64_t value, uint64_t step) { return value - value % step; }
uint64_t round_up(uint64_t value, uint64_t step) { return round_down(value + step - 1, step); }
}  // namespace

// What a request has seen of the mapping stays where it is until the request ends.
class Image::InFlight {
 public:
  explicit InFlight(Image& image) : image_(image), epoch_(image.epoch_) { ++image_.in_flight_[epoch_]; }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
  ~InFlight() {
    if (--image_.in_flight_[epoch_] == 0) image_.in_flight_.erase(epoch_);
  }

 private:
  Image& image_;
  const uint64_t epoch_;
};

Task<Result<>> Image::submit(const Request& request) {
  if (auto good = check_request(*this, request); !good) co_return std::unexpected(std::move(good).error());
  if (request.operation != Operation::Read) {
    if (options_.read_only) co_return Result<>{};  // a flush
    if (corrupt_) {
      (void)co_await set_incompatible(incompatible::kCorrupt, true);
      co_return io_failure(*this, "is damaged and is not written any more", EIO);
    }
    if (!writing_) CO_TRY(begin_writing());
  }
  Result<> done;
  {
    const InFlight here(*this);
    switch (request.operation) {
      case Operation::Read: done = co_await read(request.offset, request.buffers); break;
      case Operation::Write:
        if (request.compressed)
          done = co_await write_compressed(request.offset, request.buffers);
        else
          done = co_await write(request.offset, request.buffers);
        break;
      case Operation::WriteZeroes: done = co_await write_zeroes(request.offset, request.length, request.unmap); break;
      case Operation::Discard: done = co_await discard(request.offset, request.length); break;
      case Operation::Flush: break;
    }
  }
  if (done && (request.operation == Operation::Flush || request.fua)) done = co_await commit(true);
  if (done && request.operation != Operation::Read) done = co_await commit_if_crowded();
  co_return done;
}

Task<Result<>> Image::read(uint64_t guest, const Buffers& into) {
  const uint64_t size = into.size();
  for (uint64_t done = 0; done < size;) {
    CO_TRY_VALUE(place, place_of(guest + done, size - done));
    const Buffers part = into.slice(done, place.length);
    switch (place.kind) {
      case Kind::Zero: part.fill(0, place.length, 0); break;
      case Kind::Unallocated: CO_TRY(read_backing(guest + done, part)); break;
      case Kind::Normal: {
        const Request request(Operation::Read, place.host, part);
        CO_TRY(data().submit(request));
        break;
      }
      case Kind::Compressed: CO_TRY(read_compressed(guest + done, place.word, part)); break;
    }
    done += place.length;
  }
  co_return Result<>{};
}

Task<Result<>> Image::read_backing(uint64_t guest, const Buffers& into) {
  const uint64_t there = backing_ ? backing_->size() : 0;
  const uint64_t has = guest < there ? std::min(into.size(), there - guest) : 0;
  into.fill(has, into.size() - has, 0);
  if (has == 0) co_return Result<>{};
  const Request request(Operation::Read, guest, into.slice(0, has));
  co_return co_await backing_->submit(request);
}

Task<Result<>> Image::read_compressed(uint64_t guest, uint64_t word, const Buffers& into) {
  auto found = std::ranges::find_if(decompressed_, [&](const auto& one) { return one->word == word; });
  std::shared_ptr<Decompressed> cluster;
  if (found != decompressed_.end()) {
    cluster = *found;
    std::rotate(decompressed_.begin(), found, found + 1);
  } else {
    const auto place = CompressedPlace::of(word, header_.cluster_bits);
    std::vector<std::byte> compressed(place.length);
    CO_TRY(block::read(*file_, place.offset, compressed.data(), compressed.size()));
    cluster = std::make_shared<Decompressed>(word, std::vector<std::byte>(cluster_size_));
    bool good = false;
    co_await context_.offload([&] { good = decompress(header_.compression, compressed, cluster->bytes); });
    if (!good)
      co_return fail(ErrorKind::Usage, "{}: damaged: the compressed data at {:#x}, of the guest's {:#x}, cannot be decompressed", name(),
                     place.offset, guest);
    decompressed_.push_front(cluster);
    if (decompressed_.size() > kDecompressedClusters) decompressed_.pop_back();
  }
  into.copy_from(0, cluster->bytes.data() + guest % cluster_size_, into.size());
  co_return Result<>{};
}

// Whether the range reads as zeros, as far as the tables tell.
Task<Result<bool>> Image::is_zero(uint64_t guest, uint64_t length) {
  for (uint64_t done = 0; done < length;) {
    CO_TRY_VALUE(place, place_of(guest + done, length - done));
    const uint64_t backed = backing_ ? backing_->size() : 0;
    const bool nothing_below = place.kind == Kind::Unallocated && guest + done >= backed;
    if (place.kind != Kind::Zero && !nothing_below) co_return false;
    done += place.length;
  }
  co_return true;
}

Task<Result<>> Image::write(uint64_t guest, const Buffers& from) {
  const uint64_t size = from.size();
  for (uint64_t done = 0; done < size;) {
    CO_TRY_VALUE(place, place_of(guest + done, size - done));
    if (place.in_place) {
      const Request request(Operation::Write, place.host, from.slice(done, place.length));
      CO_TRY(data().submit(request));
      done += place.length;
    } else {
      CO_TRY_VALUE(written, write_allocating(guest + done, from.slice(done, size - done)));
      done += written;
    }
  }
  co_return Result<>{};
}

// Writes where the mapping has to change: as many clusters as one second-level page and one run of free clusters allow. Returns how
// many bytes; 0 if they can be written in place after all.
Task<Result<uint64_t>> Image::write_allocating(uint64_t guest, const Buffers& from) {
  const uint64_t first = round_down(guest, cluster_size_), page_reach = cluster_size_ * entries_per_page_;
  uint64_t end = std::min(guest + from.size(), (guest / page_reach + 1) * page_reach);
  const auto hold = co_await clusters_.acquire(first, round_up(end, cluster_size_));
  CO_TRY_VALUE(slot, slot_of(guest, true));
  CO_TRY_VALUE(place, place_of(guest, end - guest));
  if (place.in_place) co_return 0;

  const bool with_data_file = data_file_ != nullptr, extended = header_.extended_l2();
  const uint64_t sub_size = header_.subcluster_size();
  const auto reusable = [&](const Entry& entry) { return entry.has_host(with_data_file) && entry.copied(); };
  const Entry first_entry = load_entry(slot);
  uint64_t clusters = 1, host = first_entry.host();
  bool fresh = false, reuse = reusable(first_entry);
  if (reuse) {
    end = std::min({end, guest + place.length, first + cluster_size_});
  } else {
    const uint64_t wanted = round_up(end, cluster_size_) / cluster_size_ - first / cluster_size_;
    while (clusters < wanted && !reusable(load_entry(slot, clusters))) ++clusters;
    if (with_data_file) {
      host = first;
    } else {
      CO_TRY_VALUE(run, refcounts_.allocate_some(clusters));
      host = run.offset;
      clusters = run.clusters;
      fresh = grows_with_zeroes_ && run.fresh;
    }
    end = std::min(end, first + clusters * cluster_size_);
  }

  // What is copied along: the rest of a cluster whose data lies elsewhere, or of a subcluster that had none.
  const auto moves = [&](const Entry& entry) {
    return !reuse && (entry.compressed() || (entry.has_host(with_data_file) && static_cast<uint32_t>(entry.bitmap) != 0));
  };
  const Entry last_entry = load_entry(slot, clusters - 1);
  const uint64_t begin = moves(first_entry) ? first : round_down(guest, sub_size);
  const uint64_t finish = moves(last_entry) ? first + clusters * cluster_size_ : round_up(end, sub_size);
  const Placing placing{host + (begin - first), begin, guest, finish, fresh};
  if (auto done = co_await write_placed(placing, from.slice(0, end - guest)); !done) {
    if (!reuse && !with_data_file) (void)co_await refcounts_.change(host, clusters * cluster_size_, -1);
    co_return std::unexpected(std::move(done).error());
  }

  for (uint64_t n = 0; n < clusters; ++n) {
    const Entry old = load_entry(slot, n);
    Entry now{(host + n * cluster_size_) | kCopied, old.compressed() ? 0 : old.bitmap};
    if (extended) {
      const uint64_t at = first + n * cluster_size_;
      for (uint32_t sub = 0; sub < kSubclusters; ++sub) {
        const uint64_t sub_at = at + sub * sub_size;
        if (sub_at < begin || sub_at >= finish) continue;
        now.bitmap |= uint64_t{1} << sub;
        now.bitmap &= ~(uint64_t{1} << (32 + sub));
      }
    }
    if (!reuse) free_later(old);
    store_entry(slot, now, n);
  }
  co_return end - guest;
}

// The data with its surroundings, as the old mapping has them, in one request.
Task<Result<>> Image::write_placed(const Placing& placing, const Buffers& from) {
  const uint64_t end = placing.guest + from.size();
  uint64_t head = placing.guest - placing.begin, tail = placing.end > end ? placing.end - end : 0;
  // The end of the guest's disk may lie within the cluster.
  const uint64_t tail_of_disk = end + tail > header_.size ? end + tail - std::max(end, header_.size) : 0;
  if (placing.fresh) {
    if (head) {
      CO_TRY_VALUE(zero, is_zero(placing.begin, head));
      if (zero) head = 0;
    }
    if (tail > tail_of_disk) {
      CO_TRY_VALUE(zero, is_zero(end, tail - tail_of_disk));
      if (zero) tail = 0;
    } else {
      tail = 0;
    }
  }
  if (head == 0 && tail == 0) {
    const Request request(Operation::Write, placing.host + (placing.guest - placing.begin), from);
    co_return co_await data().submit(request);
  }
  std::vector<std::byte> around(head + tail);
  if (head) CO_TRY(read(placing.guest - head, Buffers(around.data(), head)));
  if (tail > tail_of_disk) CO_TRY(read(end, Buffers(around.data() + head, tail - tail_of_disk)));
  Request request(Operation::Write, placing.host + (placing.guest - head - placing.begin), Buffers(around.data(), head));
  request.buffers.append(from);
  request.buffers.append(around.data() + head, tail);
  request.length = request.buffers.size();
  co_return co_await data().submit(request);
}

Task<Result<>> Image::write_compressed(uint64_t guest, const Buffers& from) {
  if (data_file_) co_return io_failure(*this, "images with an external data file have no compression", ENOTSUP);
  if (guest % cluster_size_ || (from.size() % cluster_size_ && guest + from.size() != header_.size))
    co_return io_failure(*this, "compressed data comes in whole clusters", EINVAL);
  for (uint64_t done = 0; done < from.size(); done += cluster_size_)
    CO_TRY(write_compressed_cluster(guest + done, from.slice(done, std::min(cluster_size_, from.size() - done))));
  co_return Result<>{};
}

Task<Result<>> Image::write_compressed_cluster(uint64_t guest, const Buffers& from) {
  std::vector<std::byte> plain(cluster_size_), small;
  from.copy_to(0, plain.data(), from.size());
  co_await context_.offload([&] { small = compress(header_.compression, plain); });
  if (small.empty()) co_return co_await write(guest, from);

  const auto hold = co_await clusters_.acquire(guest, guest + cluster_size_);
  CO_TRY_VALUE(slot, slot_of(guest, true));
  CO_TRY_VALUE(at, refcounts_.allocate_bytes(small.size()));
  const Request request(Operation::Write, at, Buffers(small.data(), small.size()));
  if (auto done = co_await file_->submit(request); !done) {
    (void)co_await refcounts_.change(at, small.size(), -1);
    co_return std::unexpected(std::move(done).error());
  }
  free_later(load_entry(slot));
  store_entry(slot, Entry{CompressedPlace::word_for(at, small.size(), header_.cluster_bits), 0});
  co_return Result<>{};
}

Task<Result<>> Image::write_zeroes(uint64_t guest, uint64_t length, bool unmap) {
  const uint64_t step = header_.subcluster_size();
  // The last cluster of the disk is whole although the disk ends within it.
  const uint64_t end = guest + length, whole_end = end == header_.size ? round_up(end, step) : round_down(end, step);
  const uint64_t whole_begin = round_up(guest, step);
  if (whole_begin >= whole_end) co_return co_await zero_part(guest, length);
  CO_TRY(zero_part(guest, whole_begin - guest));
  CO_TRY(zero_clusters(whole_begin, whole_end - whole_begin, unmap, false));
  if (end > whole_end) CO_TRY(zero_part(whole_end, end - whole_end));
  co_return Result<>{};
}

// Zeros as data.
Task<Result<>> Image::zero_part(uint64_t guest, uint64_t length) {
  static const std::vector<std::byte> zeroes(kZeroChunk);
  for (uint64_t done = 0; done < length;) {
    const uint64_t now = std::min(kZeroChunk, length - done);
    CO_TRY_VALUE(already, is_zero(guest + done, now));
    if (!already) CO_TRY(write(guest + done, Buffers(std::span(zeroes).first(now))));
    done += now;
  }
  co_return Result<>{};
}

// Whole subclusters become zeros in the mapping. `discard`: where that cannot be said, things stay as they are.
Task<Result<>> Image::zero_clusters(uint64_t guest, uint64_t length, bool unmap, bool discard) {
  const bool extended = header_.extended_l2(), with_data_file = data_file_ != nullptr;
  const uint64_t sub_size = header_.subcluster_size();
  for (uint64_t at = guest, end = guest + length; at < end;) {
    CO_TRY_VALUE(zero, place_of(at, std::min(end, header_.size) - at));
    if (zero.kind == Kind::Zero || (zero.kind == Kind::Unallocated && at >= (backing_ ? backing_->size() : 0))) {
      // Nothing to do, unless space that is set aside is to be given back.
      bool host = false;
      if (zero.kind == Kind::Zero && unmap && !with_data_file) {
        CO_TRY_VALUE(slot, slot_of(at, false));
        host = load_entry(slot).host() != 0 && !(extended && at % cluster_size_ + (end - at) < cluster_size_);
        zero.length = std::min(zero.length, cluster_size_ - at % cluster_size_);
      }
      if (!host) {
        at += zero.length;
        at = std::min(end, std::max(at, round_up(at, sub_size)));
        continue;
      }
    }
    const uint64_t cluster = round_down(at, cluster_size_), stop = std::min(end, cluster + cluster_size_);
    const bool whole = at == cluster && stop == cluster + cluster_size_;
    const bool below = backing_ && cluster < backing_->size();
    bool as_data = false;
    {
      const auto hold = co_await clusters_.acquire(cluster, cluster + cluster_size_);
      CO_TRY_VALUE(slot, slot_of(at, true));
      const Entry old = load_entry(slot);
      Entry now = old;
      if (auto good = check_entry(old, cluster); !good) co_return std::unexpected(std::move(good).error());
      if (header_.version < 3) {
        if (below)
          as_data = true;
        else
          now = {};
      } else if (with_data_file && (header_.autoclear & autoclear::kRawDataFile)) {
        as_data = true;  // the data file shows it, too
      } else if (!extended) {
        const bool keep = old.has_host(with_data_file) && (with_data_file || (!unmap && old.copied()));
        now.word = keep ? old.word | kZero : kZero;
      } else if (old.compressed() && !whole) {
        as_data = true;
      } else {
        const uint64_t count = (stop - at) / sub_size, shift = at % cluster_size_ / sub_size;
        const uint64_t mask = count == kSubclusters ? UINT32_MAX : ((uint64_t{1} << count) - 1) << shift;
        if (old.compressed()) now = {};
        now.bitmap = (now.bitmap & ~mask) | mask << 32;
        if (whole && unmap && !with_data_file) now.word = 0;
      }
      if (!as_data && (now.word != old.word || now.bitmap != old.bitmap)) {
        const bool lets_go = old.compressed() || (old.host() && !now.host());
        if (lets_go) free_later(old);
        store_entry(slot, now);
      }
    }
    if (as_data && !discard) CO_TRY(zero_part(at, std::min(stop, header_.size) - at));
    at = stop;
    CO_TRY(commit_if_crowded());
  }
  co_return Result<>{};
}

Task<Result<>> Image::preallocate(uint64_t guest, uint64_t length, Preallocation how) {
  if (options_.read_only) co_return io_failure(*this, "cannot be changed", EROFS);
  CO_TRY(begin_writing());
  const uint64_t page_reach = cluster_size_ * entries_per_page_, end = round_up(guest + length, cluster_size_);
  for (uint64_t at = round_down(guest, cluster_size_); at < end;) {
    CO_TRY(commit_if_crowded());
    const uint64_t stop = std::min(end, (at / page_reach + 1) * page_reach);
    const auto hold = co_await clusters_.acquire(at, stop);
    CO_TRY_VALUE(slot, slot_of(at, true));
    const auto unallocated = [&](uint64_t n) {
      const Entry entry = load_entry(slot, n);
      return entry.word == 0 && entry.bitmap == 0;
    };
    uint64_t clusters = 0;
    const uint64_t here = (stop - at) / cluster_size_;
    if (!unallocated(0)) {
      at += cluster_size_;
      continue;
    }
    while (clusters < here && unallocated(clusters)) ++clusters;
    uint64_t host = at;
    bool zeros = false;
    if (!data_file_) {
      CO_TRY_VALUE(run, refcounts_.allocate_some(clusters));
      host = run.offset;
      clusters = run.clusters;
      zeros = grows_with_zeroes_ && run.fresh;
    }
    const uint64_t bytes = clusters * cluster_size_;
    if (how == Preallocation::Full) {
      CO_TRY(write_zeroes_as_data(data(), host, bytes));
    } else if (how == Preallocation::Falloc || !zeros) {
      CO_TRY(block::write_zeroes(data(), host, bytes, how != Preallocation::Falloc));
    }
    if (host + bytes > data().size()) CO_TRY(data().resize(host + bytes));  // what the tables name is in the file
    for (uint64_t n = 0; n < clusters; ++n)
      store_entry(slot, {(host + n * cluster_size_) | kCopied, header_.extended_l2() ? UINT32_MAX : 0}, n);
    at += bytes;
  }
  co_return co_await commit(true);
}

Task<Result<>> Image::discard(uint64_t guest, uint64_t length) {
  const uint64_t step = header_.subcluster_size();
  const uint64_t end = guest + length, begin = round_up(guest, step);
  const uint64_t finish = end == header_.size ? round_up(end, step) : round_down(end, step);
  if (begin >= finish) co_return Result<>{};
  co_return co_await zero_clusters(begin, finish - begin, true, true);
}

}  // namespace lodge::block::qcow2
