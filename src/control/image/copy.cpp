#include "control/image/copy.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "block/buffers.hpp"
#include "control/image/interrupt.hpp"

namespace lodge::control::image {

namespace {

using block::Buffers;
using block::Operation;
using block::Request;
using block::TaskGroup;

constexpr uint64_t kChunk = 2 << 20;  // read and written at once
constexpr uint64_t kZeroChunk = uint64_t{1} << 30;
constexpr uint64_t kAlignment = 4096;  // of memory, for O_DIRECT

struct FreeMemory {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte, FreeMemory>;

class Copier {
 public:
  Copier(Node& target, NextPiece next, const CopyOptions& options, Progress& progress, uint64_t total)
      : target_(target), next_(std::move(next)), options_(options), progress_(progress), total_(total) {
    step_ = options.compressed ? target.limits().optimal : std::max<uint64_t>(kChunk, target.limits().optimal);
  }

  Task<Result<>> run() {
    TaskGroup workers(options_.parallel);
    for (unsigned n = 0; n < options_.parallel; ++n) co_await workers.add(work());
    co_return co_await workers.finish();
  }

 private:
  // What is read and written at once, and which one in the order of the disk. Of several pieces where a compressed cluster is.
  struct Chunk {
    uint64_t number = 0;
    uint64_t target = 0, length = 0;
    std::vector<Piece> parts{};
    [[nodiscard]] bool zero() const {
      return std::ranges::all_of(parts, [](const Piece& part) { return part.zero; });
    }
  };

  Task<Result<std::optional<Chunk>>> take() {
    const auto hold = co_await taking_.lock();
    Chunk chunk{.number = number_};
    do {
      if (auto stop = interrupted(); !stop) co_return std::unexpected(stop.error());
      if (failed_) co_return std::nullopt;
      if (!piece_ || piece_->length == 0) {
        CO_TRY_VALUE(next, next_());
        piece_ = next;
        if (!piece_) break;
      }
      Piece part = *piece_;
      if (chunk.parts.empty()) chunk.target = part.target;
      if (chunk.target + chunk.length != part.target) break;  // what lies between stays as it is
      // Chunks end where the target's clusters do.
      const uint64_t step = part.zero && chunk.parts.empty() && part.target % step_ == 0 && part.length >= step_ ? kZeroChunk : step_;
      part.length = std::min(piece_->length, step - part.target % step);
      if (step == kZeroChunk && options_.compressed) part.length -= part.length % step_;
      piece_->offset += part.length;
      piece_->target += part.length;
      piece_->length -= part.length;
      chunk.length += part.length;
      chunk.parts.push_back(part);
    } while (options_.compressed && (chunk.target + chunk.length) % step_);
    if (chunk.parts.empty()) co_return std::nullopt;
    ++number_;
    progress_.show(chunk.target, total_);
    co_return chunk;
  }

  Task<Result<>> work() {
    const Memory memory(static_cast<std::byte*>(std::aligned_alloc(kAlignment, step_)));
    if (!memory) throw std::bad_alloc();
    for (;;) {
      auto chunk = co_await take();
      Result<> done;
      if (chunk && !*chunk) break;
      if (!chunk)
        done = std::unexpected(std::move(chunk).error());
      else
        done = co_await carry(**chunk, memory.get());
      if (!done) {
        failed_ = true;
        turns_.wake_all();
        co_return done;
      }
    }
    co_return Result<>{};
  }

  Task<Result<>> carry(const Chunk& chunk, std::byte* memory) {
    if (chunk.zero() && options_.sparse) {
      co_await my_turn(chunk);
      end_turn(chunk);
      if (options_.target_is_zero) co_return Result<>{};
      co_return co_await write_zeroes(target_, chunk.target, chunk.length);
    }
    uint64_t filled = 0;
    for (const Piece& part : chunk.parts) {
      if (part.length > step_) break;  // zeros that are to be written: the memory for them comes below
      if (part.zero) {
        std::fill_n(memory + filled, part.length, std::byte{0});
      } else if (auto got = co_await read(*part.from, part.offset, memory + filled, part.length); !got) {
        if (!options_.salvage) co_return got;
        CO_TRY(salvage(part, memory + filled));
      }
      filled += part.length;
    }
    // The write begins before whoever waits for the turn goes on (WaitQueue), so that its place in the target is settled first.
    co_await my_turn(chunk);
    end_turn(chunk);
    if (failed_) co_return Result<>{};
    if (filled == chunk.length) co_return co_await write_chunk(chunk.target, memory, filled);
    std::fill_n(memory, step_, std::byte{0});
    for (uint64_t done = 0; done < chunk.length; done += step_)
      CO_TRY(write(target_, chunk.target + done, memory, std::min(step_, chunk.length - done)));
    co_return Result<>{};
  }

  Task<Result<>> write_chunk(uint64_t target, std::byte* memory, uint64_t length) {
    if (!options_.compressed || target % step_) co_return co_await write_runs(target, memory, length);
    // A cluster that ends behind the source's end has zeros there.
    const uint64_t whole = std::min(step_, target_.size() - target);
    if (length < whole && target + length < total_) co_return co_await write_runs(target, memory, length);
    std::fill(memory + length, memory + whole, std::byte{0});
    if (options_.target_is_zero && block::is_zero(memory, whole)) co_return Result<>{};
    Request request(Operation::Write, target, Buffers(std::span(memory, whole)));
    request.compressed = true;
    co_return co_await target_.submit(request);
  }

  Task<> my_turn(const Chunk& chunk) {
    while (options_.in_order && turn_ != chunk.number && !failed_) co_await turns_.wait();
  }
  void end_turn(const Chunk& chunk) {
    if (!options_.in_order || turn_ != chunk.number) return;
    ++turn_;
    turns_.wake_all();
  }

  // Sector by sector.
  static Task<Result<>> salvage(const Piece& piece, std::byte* memory) {
    uint64_t lost = 0;
    for (uint64_t at = 0; at < piece.length; at += block::kSector) {
      const uint64_t length = std::min(block::kSector, piece.length - at);
      if (co_await read(*piece.from, piece.offset + at, memory + at, length)) continue;
      std::fill_n(memory + at, length, std::byte{0});
      ++lost;
    }
    warn(fmt::format("{}: {} sectors between {:#x} and {:#x} could not be read, and are zeros now", piece.from->name(), lost, piece.offset,
                     piece.offset + piece.length));
    co_return Result<>{};
  }

  // What is zero for long enough is left out or becomes a hole.
  Task<Result<>> write_runs(uint64_t target, const std::byte* memory, uint64_t length) {
    const auto grain_end = [&](uint64_t at) {
      const uint64_t grain = options_.sparse;
      return grain ? std::min(length, ((target + at) / grain + 1) * grain - target) : length;
    };
    const auto zero_at = [&](uint64_t at) { return options_.sparse && block::is_zero(memory + at, grain_end(at) - at); };
    for (uint64_t at = 0; at < length;) {
      const bool zero = zero_at(at);
      uint64_t end = grain_end(at);
      while (end < length && zero_at(end) == zero) end = grain_end(end);
      if (!zero)
        CO_TRY(write(target_, target + at, memory + at, end - at));
      else if (!options_.target_is_zero)
        CO_TRY(write_zeroes(target_, target + at, end - at));
      at = end;
    }
    co_return Result<>{};
  }

  Node& target_;
  const NextPiece next_;
  const CopyOptions options_;
  Progress& progress_;
  const uint64_t total_;
  uint64_t step_;
  block::AsyncMutex taking_;
  std::optional<Piece> piece_;
  uint64_t number_ = 0, turn_ = 0;
  block::WaitQueue turns_;
  bool failed_ = false;
};

}  // namespace

Task<Result<>> copy(Node& target, NextPiece next, const CopyOptions& options, Progress& progress, uint64_t total) {
  Copier copier(target, std::move(next), options, progress, total);
  co_return co_await copier.run();
}

}  // namespace lodge::control::image
