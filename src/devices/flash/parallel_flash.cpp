#include "devices/flash/parallel_flash.hpp"

#include <algorithm>
#include <array>
#include <bit>

namespace lodge::devices::flash {

namespace {

enum Command : uint8_t {
  kProgram = 0x10,
  kErase = 0x20,
  kProgramToo = 0x40,
  kClearStatus = 0x50,
  kReadStatus = 0x70,
  kReadIdentifier = 0x90,
  kReadQuery = 0x98,
  kConfirm = 0xd0,
  kWriteBuffer = 0xe8,
  kReadArray = 0xff,
};
constexpr uint8_t kReady = 0x80, kSequenceError = 0x30;  // status: erase and program failed together
constexpr uint8_t kIntel = 0x89, kDevice = 0x18;

}  // namespace

// Leaving the array and coming back to it is the board's business too; what has changed is told at the end of a sequence, not byte by byte.
void ParallelFlash::enter(Mode mode) {
  const bool was = mode_ == Mode::Array, is = mode == Mode::Array;
  mode_ = mode;
  if (was == is) return;
  if (is && end_changed_ > first_changed_ && board_.changed) board_.changed(first_changed_, end_changed_ - first_changed_);
  if (is) first_changed_ = end_changed_ = 0;
  if (board_.show_array) board_.show_array(is);
}

void ParallelFlash::touch(uint64_t offset, uint64_t length) {
  const bool none = end_changed_ == first_changed_;
  first_changed_ = none ? offset : std::min(first_changed_, offset);
  end_changed_ = std::max(end_changed_, offset + length);
}

// JESD68: the table at 0x10 says which command set it is, how long operations take, and of which blocks it consists.
uint8_t ParallelFlash::read_byte(uint64_t offset) const {
  switch (mode_) {
    case Mode::Array: return array_[offset];
    case Mode::Identifier: return (offset & 1) == 0 ? kIntel : kDevice;
    case Mode::Query: {
      const auto blocks = static_cast<uint32_t>(array_.size() / kBlockBytes - 1);
      const auto low = [](uint32_t value, unsigned shift) { return static_cast<uint8_t>(value >> shift); };
      const std::array<uint8_t, 33> table{'Q',
                                          'R',
                                          'Y',
                                          1,
                                          0,
                                          0x31,
                                          0,
                                          0,
                                          0,
                                          0,
                                          0,  // Intel extended; no primary table
                                          0x45,
                                          0x55,
                                          0,
                                          0,
                                          7,
                                          7,
                                          10,
                                          0,
                                          4,
                                          4,
                                          4,
                                          0,                                                        // voltages, typical and longest times
                                          static_cast<uint8_t>(std::bit_width(array_.size() - 1)),  // size as a power of two
                                          0,
                                          0,
                                          static_cast<uint8_t>(std::bit_width(kBufferBytes - 1)),
                                          0,
                                          1,
                                          low(blocks, 0),
                                          low(blocks, 8),
                                          low(kBlockBytes, 8),
                                          low(kBlockBytes, 16)};
      constexpr uint64_t kTable = 0x10;
      return offset >= kTable && offset - kTable < table.size() ? table[offset - kTable] : 0;
    }
    default: return status_;
  }
}

// Programming can only make zeros of ones.
void ParallelFlash::program(uint64_t offset, uint8_t value) {
  array_[offset] &= value;
  touch(offset, 1);
  status_ |= kReady;
}

void ParallelFlash::command(uint8_t value) {
  switch (value) {
    case kProgram:
    case kProgramToo: return enter(Mode::Program);
    case kErase: return enter(Mode::Erase);
    case kClearStatus: status_ = 0; return enter(Mode::Array);
    case kReadStatus: return enter(Mode::Status);
    case kReadIdentifier: return enter(Mode::Identifier);
    case kReadQuery: return enter(Mode::Query);
    case kWriteBuffer:
      status_ |= kReady;  // the buffer is free
      return enter(Mode::BufferCount);
    case kReadArray: return enter(Mode::Array);
    default: return;  // no command
  }
}

void ParallelFlash::write_byte(uint64_t offset, uint8_t value) {
  switch (mode_) {
    case Mode::Program: program(offset, value); return enter(Mode::Status);
    case Mode::Erase:
      if (value == kConfirm) {
        const uint64_t block = offset - offset % kBlockBytes;
        std::fill_n(array_.begin() + static_cast<std::ptrdiff_t>(block), kBlockBytes, uint8_t{0xff});
        touch(block, kBlockBytes);
      } else {
        status_ |= kSequenceError;
      }
      status_ |= kReady;
      return enter(Mode::Status);
    case Mode::BufferCount:
      buffer_.clear();
      buffer_wants_ = std::min<size_t>(value + size_t{1}, kBufferBytes);
      return enter(Mode::BufferData);
    case Mode::BufferData:
      buffer_.emplace_back(offset, value);
      return enter(buffer_.size() == buffer_wants_ ? Mode::BufferConfirm : Mode::BufferData);
    case Mode::BufferConfirm:
      if (value == kConfirm)
        for (const auto& [at, byte] : buffer_) program(at, byte);
      else
        status_ |= kSequenceError;
      status_ |= kReady;
      return enter(Mode::Status);
    default: return command(value);
  }
}

uint64_t ParallelFlash::read(uint64_t offset, unsigned size) {
  MutexLock lock(mutex_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{read_byte(offset + i)} << (8 * i);
  return value;
}

// A chip with 8 lines takes wider writes as so many of its own.
void ParallelFlash::write(uint64_t offset, unsigned size, uint64_t value) {
  MutexLock lock(mutex_);
  for (unsigned i = 0; i < size; ++i) write_byte(offset + i, static_cast<uint8_t>(value >> (8 * i)));
}

}  // namespace lodge::devices::flash
