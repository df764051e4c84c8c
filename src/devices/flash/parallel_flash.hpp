// A NOR flash chip with 8 data lines and Intel's command set (JEDEC JESD68, JEP137: command set 1; Intel StrataFlash J3 datasheet, order
// number 290667, tables 4 and 16), in which UEFI firmware keeps its variables.
//
// While nobody has given it a command the chip is read like a ROM; then the board may show its array to the processor directly.
//
// Deviations: operations are complete at once; no block lock bits and no protection registers; "clear status" clears the ready bit too,
// by which OVMF tells flash from ROM and RAM (it knows QEMU's chip).
//
// Threads: any.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/mutex.hpp"
#include "devices/bus.hpp"

namespace lodge::devices::flash {

class ParallelFlash final : public MmioDevice {
 public:
  static constexpr uint32_t kBlockBytes = 4096, kBufferBytes = 256;

  struct Board {
    std::function<void(bool shown)> show_array;                     // whether reads may go to the array directly; shown at first
    std::function<void(uint64_t offset, uint64_t length)> changed;  // what was programmed or erased, when the array is read again
  };
  // `array`: a whole number of blocks; it outlives this object.
  ParallelFlash(std::span<uint8_t> array, Board board) : array_(array), board_(std::move(board)) {}

  uint64_t read(uint64_t offset, unsigned size) override LODGE_EXCLUDES(mutex_);
  void write(uint64_t offset, unsigned size, uint64_t value) override LODGE_EXCLUDES(mutex_);

 private:
  enum class Mode : uint8_t { Array, Status, Identifier, Query, Program, Erase, BufferCount, BufferData, BufferConfirm };

  [[nodiscard]] uint8_t read_byte(uint64_t offset) const LODGE_REQUIRES(mutex_);
  void write_byte(uint64_t offset, uint8_t value) LODGE_REQUIRES(mutex_);
  void command(uint8_t value) LODGE_REQUIRES(mutex_);
  void enter(Mode mode) LODGE_REQUIRES(mutex_);
  void program(uint64_t offset, uint8_t value) LODGE_REQUIRES(mutex_);
  void touch(uint64_t offset, uint64_t length) LODGE_REQUIRES(mutex_);

  const std::span<uint8_t> array_;
  const Board board_;
  Mutex mutex_;
  Mode mode_ LODGE_GUARDED_BY(mutex_) = Mode::Array;
  uint8_t status_ LODGE_GUARDED_BY(mutex_) = 0x80;
  uint64_t first_changed_ LODGE_GUARDED_BY(mutex_) = 0, end_changed_ LODGE_GUARDED_BY(mutex_) = 0;
  std::vector<std::pair<uint64_t, uint8_t>> buffer_ LODGE_GUARDED_BY(mutex_);
  size_t buffer_wants_ LODGE_GUARDED_BY(mutex_) = 0;
};

}  // namespace lodge::devices::flash
