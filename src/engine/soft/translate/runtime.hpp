// What translated code calls: memory operands, stack, strings, and the few user-mode instructions that cannot be copied.
// Freestanding, general registers only: the guest's vector and x87 state is live in the host's registers.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

// Or'ed to the size of a memory operand.
constexpr uint32_t kOperandStack = 1u << 31;    // a bad address is #SS, not #GP
constexpr uint32_t kOperandLocked = 1u << 30;   // LOCK, or XCHG with memory
constexpr uint32_t kOperandAligned = 1u << 29;  // misalignment is #GP, before the page walk
constexpr uint32_t kOperandChecked = 1u << 28;  // a segment's limit has been checked, which may lie beyond 4 GiB from its base on
constexpr uint32_t kOperandSize = 0xffff;

// All ones in the low bytes: 1 to 8.
inline uint64_t width_mask(uint32_t bytes) { return bytes == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * bytes)) - 1; }

enum class StringOp : uint32_t { Movs, Stos, Lods, Cmps, Scas, Ins, Outs };
// One string instruction, packed for the call.
struct StringForm {
  StringOp op;
  uint8_t element;        // bytes: 1, 2, 4, 8
  uint8_t address_width;  // bytes: 2, 4, 8
  uint8_t segment;        // of the source
  uint8_t repeat;         // 0 none, 1 REP/REPE, 2 REPNE
  [[nodiscard]] uint64_t pack() const {
    return static_cast<uint64_t>(op) | static_cast<uint64_t>(element) << 8 | static_cast<uint64_t>(address_width) << 16 |
           static_cast<uint64_t>(segment) << 24 | static_cast<uint64_t>(repeat) << 32;
  }
  static StringForm unpack(uint64_t v) {
    return {static_cast<StringOp>(v & 0xff), static_cast<uint8_t>(v >> 8), static_cast<uint8_t>(v >> 16), static_cast<uint8_t>(v >> 24),
            static_cast<uint8_t>(v >> 32)};
  }
};

enum class XsaveKind : uint32_t { Fxsave, Fxrstor, Xsave, Xsaveopt, Xsavec, Xsaves, Xrstor, Xrstors };
enum class X87Env : uint32_t { Stenv, Ldenv, Save, Rstor };

extern "C" {
// The host address of a memory operand, or no return: a fault, or the slow variant.
uint64_t rt_read_pointer(CpuState* c, uint64_t linear, uint32_t size);
uint64_t rt_write_pointer(CpuState* c, uint64_t linear, uint32_t size);  // also read-modify-write
// The slow variant: the operand's host address, in guest RAM or in the bounce buffer; then its commit.
uint64_t rt_slow_begin(CpuState* c, uint64_t linear, uint32_t size, uint32_t read, uint32_t write);
void rt_slow_commit(CpuState* c);
// #GP for a misaligned kOperandAligned operand.
void rt_check_aligned(CpuState* c, uint64_t linear, uint32_t size);
// #AC under EFLAGS.AC (SDM vol. 3, table 6-7), after what comes before it.
void rt_check_alignment(CpuState* c, uint64_t linear, uint32_t size);

uint64_t rt_load(CpuState* c, uint64_t linear, uint32_t size);  // zero-extended
void rt_store(CpuState* c, uint64_t linear, uint32_t size, uint64_t value);
void rt_push(CpuState* c, uint64_t value, uint32_t size);
void rt_push_selector(CpuState* c, uint64_t value, uint32_t size);  // a segment register
uint64_t rt_peek_selector(CpuState* c, uint32_t size);
uint64_t rt_peek(CpuState* c, uint32_t size);  // the value at the top of the stack
void rt_drop(CpuState* c, uint32_t size);      // RSP += size in the stack's width
uint64_t rt_pop(CpuState* c, uint32_t size);

// Near transfers: operand_size in bytes; they set next_rip.
void rt_jump(CpuState* c, uint64_t target, uint32_t operand_size);
void rt_call(CpuState* c, uint64_t target, uint32_t operand_size);
void rt_return(CpuState* c, uint32_t operand_size, uint32_t extra);
// LOOP (0), LOOPE (1), LOOPNE (2), JCXZ (3): 1 if taken; counts RCX.
uint32_t rt_loop(CpuState* c, uint32_t kind, uint32_t address_width);

void rt_string(CpuState* c, uint64_t form);
uint32_t rt_in(CpuState* c, uint32_t port, uint32_t size);
void rt_out(CpuState* c, uint32_t port, uint32_t size);

void rt_enter(CpuState* c, uint32_t operand_size, uint32_t frame, uint32_t level);
void rt_leave(CpuState* c, uint32_t operand_size);
void rt_pusha(CpuState* c, uint32_t operand_size);
void rt_popa(CpuState* c, uint32_t operand_size);
void rt_xlat(CpuState* c, uint32_t segment, uint32_t address_width);
void rt_bound(CpuState* c, uint32_t index, uint32_t operand_size);  // the bounds in c.operand[0] and [1]
// AAA, AAS, DAA, DAS, AAM, AAD, SALC by their opcode; `immediate` for AAM and AAD.
void rt_decimal(CpuState* c, uint32_t opcode, uint32_t immediate);

// The offset of `linear` in `segment` is for the limit check of areas whose size depends on what is asked for.
void rt_xsave(CpuState* c, uint64_t linear, uint32_t kind, uint32_t wide, uint32_t segment, uint64_t offset);
void rt_x87_settle(CpuState* c);  // x87_settle() with the running guest's status word
void rt_x87_environment(CpuState* c, uint64_t linear, uint32_t kind, uint32_t operand_size);
// VGATHER*/VPGATHER*: operands spilled to c.operand[0] (destination), [1] (index), [2] (mask), which hold the result, too.
enum class GatherEnd : uint32_t { Complete, Again, Fault };
GatherEnd rt_gather(CpuState* c, uint64_t base, uint64_t form);
// Goes on with the fault that rt_gather() reported.
[[noreturn]] void rt_gather_fault(CpuState* c);
// VMASKMOV*, VPMASKMOV*: mask in c.operand[1], data in [0]; form: MaskedForm.
void rt_masked_load(CpuState* c, uint64_t offset, uint64_t form);
void rt_masked_store(CpuState* c, uint64_t offset, uint64_t form);
void rt_masked_store_bytes(CpuState* c, uint64_t offset, uint64_t form);  // MASKMOVDQU, MASKMOVQ: the same by bytes

// RDRAND and RDSEED with a virtual clock: the same numbers in each run.
uint64_t rt_random(CpuState* c);
// #UD, #NM, ... from translated code.
[[noreturn]] void rt_raise(CpuState* c, uint32_t vector);
[[noreturn]] void rt_raise_error(CpuState* c, uint32_t vector, uint32_t error_code);
}

struct MaskedForm {
  uint8_t segment, element, total, address_width;  // bytes
  [[nodiscard]] uint64_t pack() const { return segment | uint64_t{element} << 8 | uint64_t{total} << 16 | uint64_t{address_width} << 24; }
  static MaskedForm unpack(uint64_t v) {
    return {static_cast<uint8_t>(v), static_cast<uint8_t>(v >> 8), static_cast<uint8_t>(v >> 16), static_cast<uint8_t>(v >> 24)};
  }
};

struct GatherForm {
  uint8_t index_size, element_size, count, scale_shift, address_width, segment;
  [[nodiscard]] uint64_t pack() const {
    return index_size | static_cast<uint64_t>(element_size) << 8 | static_cast<uint64_t>(count) << 16 |
           static_cast<uint64_t>(scale_shift) << 24 | static_cast<uint64_t>(address_width) << 32 | static_cast<uint64_t>(segment) << 40;
  }
  static GatherForm unpack(uint64_t v) {
    return {static_cast<uint8_t>(v),       static_cast<uint8_t>(v >> 8),  static_cast<uint8_t>(v >> 16),
            static_cast<uint8_t>(v >> 24), static_cast<uint8_t>(v >> 32), static_cast<uint8_t>(v >> 40)};
  }
};

}  // namespace lodge::engine::soft
