#include "engine/soft/cpu/access.hpp"

#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/mode.hpp"

namespace lodge::engine::soft {
namespace {

// SDM vol. 3, 5.5 and table 3-1. Real and virtual-8086 mode check limits only.
bool type_allows(const SegmentRegister& s, bool write) {
  if (!(s.attributes & attr::kPresent)) return false;
  if (s.attributes & attr::kCode) return !write && (s.attributes & attr::kReadable);
  return !write || (s.attributes & attr::kWritable);
}

bool expand_down(const SegmentRegister& s) {
  return (s.attributes & attr::kS) && (s.attributes & (attr::kCode | attr::kExpandDown)) == attr::kExpandDown;
}

// An operand that goes on behind the last byte of a segment of 4 GiB: Intel's processors let it wrap where the segment's base is 0 (SDM
// vol. 3, 5.3: "implementation specific").
bool wraps(const CpuState& c, const SegmentRegister& s) { return c.intel_rules && s.base == 0 && s.limit == 0xffffffff && !expand_down(s); }

uint64_t width_mask(uint32_t width) { return width == 8 ? ~0ull : width == 4 ? 0xffffffffull : 0xffffull; }

}  // namespace

bool outside_limit(const SegmentRegister& s, uint64_t offset, uint32_t size) {
  const uint64_t last = offset + size - 1;
  if (!expand_down(s)) return last > s.limit;
  const uint64_t top = s.attributes & attr::kDb ? 0xffffffff : 0xffff;
  return offset <= s.limit || last > top;
}

uint64_t segment_linear(CpuState& c, uint32_t segment, uint64_t offset, uint32_t size, bool write) {
  const SegmentRegister& s = c.seg[segment];
  const Vector vector = segment == kSs ? kSs_ : kGp;
  if (code64(c)) {
    const bool based = segment == kFs || segment == kGs;
    const uint64_t linear = based ? s.base + offset : offset;
    // AMD's processors want the offset canonical, too.
    if (based && vendor_is_amd(c) && (!canonical(offset) || !canonical(offset + size - 1))) raise(c, vector, 0);
    if (!canonical(linear) || !canonical(linear + size - 1)) raise(c, vector, 0);
    return linear;
  }
  if (!real_or_v86(c) && !type_allows(s, write)) raise(c, vector, 0);
  if (outside_limit(s, offset, size) && !wraps(c, s)) raise(c, vector, 0);
  return (s.base + offset) & 0xffffffff;
}

uint32_t stack_width(const CpuState& c) {
  if (code64(c)) return 8;
  return c.seg[kSs].attributes & attr::kDb ? 4 : 2;
}

uint64_t merge_rsp(uint64_t old, uint64_t value, uint32_t width) {
  return width == 2 ? (old & ~0xffffull) | (value & 0xffff) : value & width_mask(width);
}

void set_rsp(CpuState& c, uint64_t value) { c.gpr[kRsp] = merge_rsp(c.gpr[kRsp], value, stack_width(c)); }

Stack current_stack(const CpuState& c) { return {c.seg[kSs], c.gpr[kRsp], stack_width(c), false, 0}; }

uint64_t stack_linear(CpuState& c, const Stack& stack, uint64_t offset, uint32_t size) {
  if (stack.width == 8) {
    if (!canonical(offset) || !canonical(offset + size - 1)) raise(c, kSs_, stack.error_code);
    return offset;
  }
  offset &= width_mask(stack.width);
  if (!real_or_v86(c) && !(stack.ss.attributes & attr::kPresent)) raise(c, kSs_, stack.error_code);
  if (outside_limit(stack.ss, offset, size) && !wraps(c, stack.ss)) raise(c, kSs_, stack.error_code);
  return (stack.ss.base + offset) & 0xffffffff;
}

void check_alignment(CpuState& c, uint64_t linear, uint32_t size) {
  if ((c.key & key::kAlignmentCheck) && (linear & (size - 1))) raise(c, kAc, 0);
}

uint64_t stack_peek(CpuState& c, const Stack& stack, uint32_t depth, uint32_t size) {
  uint64_t value = 0;
  // As for other operands (translate/runtime_memory.cpp): the alignment first where the operand begins at a canonical address.
  if (stack.width == 8 && !stack.system && c.intel_rules && canonical(stack.rsp + depth)) check_alignment(c, stack.rsp + depth, size);
  const uint64_t linear = stack_linear(c, stack, stack.rsp + depth, size);
  if (!stack.system) check_alignment(c, linear, size);
  mmu_read(c, linear, &value, size);
  return value;
}

uint32_t stack_peek_selector(CpuState& c, const Stack& stack, uint32_t depth, uint32_t size) {
  return static_cast<uint16_t>(stack_peek(c, stack, depth, c.intel_rules ? 2 : size));
}

uint64_t write_frame(CpuState& c, const Stack& stack, const Frame& frame) {
  uint64_t linear[Frame::kMax];
  uint8_t bytes[Frame::kMax * 8];
  bool contiguous = true;
  for (uint32_t i = 0; i < frame.count; ++i) {
    linear[i] = stack_linear(c, stack, stack.rsp - (i + 1) * frame.size, frame.size);
    if (!stack.system) check_alignment(c, linear[i], frame.size);
    if (i > 0 && linear[i] + frame.size != linear[i - 1]) contiguous = false;
    for (uint32_t b = 0; b < frame.size; ++b)
      bytes[(frame.count - 1 - i) * frame.size + b] = static_cast<uint8_t>(frame.value[i] >> (8 * b));
  }
  const auto write = [&](uint64_t at, const uint8_t* from, uint32_t size) {
    if (stack.system)
      mmu_write_system(c, at, from, size);
    else
      mmu_write(c, at, from, size);
  };
  if (contiguous) {
    write(linear[frame.count - 1], bytes, frame.count * frame.size);
  } else {
    for (uint32_t i = 0; i < frame.count; ++i) mmu_probe_write(c, linear[i], frame.size, stack.system);
    for (uint32_t i = 0; i < frame.count; ++i) write(linear[i], bytes + (frame.count - 1 - i) * frame.size, frame.size);
  }
  return merge_rsp(stack.rsp, stack.rsp - frame.count * frame.size, stack.width);
}

void push(CpuState& c, uint64_t value, uint32_t size) {
  const Stack stack = current_stack(c);
  const uint64_t at = stack.rsp - size;
  if (stack.width == 8 && c.intel_rules && canonical(at)) check_alignment(c, at, size);
  const uint64_t linear = stack_linear(c, stack, at, size);
  check_alignment(c, linear, size);
  mmu_write(c, linear, &value, size);
  set_rsp(c, stack.rsp - size);
}

uint64_t pop(CpuState& c, uint32_t size) {
  const Stack stack = current_stack(c);
  const uint64_t value = stack_peek(c, stack, 0, size);
  set_rsp(c, stack.rsp + size);
  return value;
}

}  // namespace lodge::engine::soft
