// The first tier: one guest instruction at a time, no optimisation. The reference that everything faster is compared with.
//
// All guest registers and flags live in CpuState between two instructions. What can be copied is: its memory operand is looked
// up first (the only part that can fault or leave), then the registers it names are loaded into the host registers of the
// same numbers, it runs, and what it wrote is stored. RIP is committed last.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/soft/translate/assembler.hpp"
#include "engine/soft/translate/instruction.hpp"

namespace lodge::engine::soft {

// Where translated code finds the guest's registers in CpuState.
constexpr uint32_t gpr_offset(int r) { return static_cast<uint32_t>(offsetof(CpuState, gpr) + 8 * static_cast<uint32_t>(r)); }
constexpr uint32_t kRip = offsetof(CpuState, rip), kNextRip = offsetof(CpuState, next_rip);

class Tier1 {
 public:
  // `slow`: the form that goes through rt_slow_begin() and rt_slow_commit().
  // `repeatable`: nothing of the host's randomness (virtual clock).
  Tier1(Assembler& as, uint32_t key, bool slow, bool repeatable) : as_(as), key_(key), slow_(slow), repeatable_(repeatable) {}

  void prologue();
  void epilogue();
  // From now on epilogue() emits jumps, which are kept here, instead of the way back to the loop.
  void collect_ends(std::vector<Assembler::Label>* ends) { ends_ = ends; }
  // Emits one instruction. True: the block ends with it (the epilogue is emitted).
  bool emit(const Instruction& instruction);
  // What emit() would do: raise #UD or #NM, use code of its own, or copy.
  enum class Way { Raise, Own, Copy };
  [[nodiscard]] static Way way_of(const Instruction& in, uint32_t key, bool repeatable);
  // Emits a fault in place of an instruction that cannot run.
  void emit_raise(Vector vector);
  void emit_raise_error(Vector vector, uint32_t error_code);

 private:
  friend class Tier2;
  enum class Flow { Next, End };  // End: the mode, the flow or the code itself may have changed

  struct MemoryUse {
    const ZydisDecodedOperand* operand = nullptr;
    uint32_t size = 0;  // bytes, with kOperandStack and kOperandLocked
    bool read = false, write = false;
  };

  Flow translate(const Instruction& in);
  bool unavailable(const Instruction& in);  // emits #UD or #NM if the state forbids the instruction

  // --- the copied ones (tier1_copy.cpp)
  Flow copy(const Instruction& in);
  MemoryUse memory_use(const Instruction& in) const;
  void copied_bytes(const Instruction& in, Host memory, Host stack_alias, bool has_memory, int bit_offset_register);
  void host_pointer(const MemoryUse& use, Host into);
  void execute(const Instruction& in, const MemoryUse& use, Host memory, uint32_t taken, int bit_offset_of);
  Flow bit_string(const Instruction& in);

  // --- the others (tier1_special.cpp)
  bool special(const Instruction& in, Flow& flow);
  Flow near_branch(const Instruction& in);
  [[nodiscard]] uint32_t branch_bytes(const Instruction& in) const;
  Flow push_pop(const Instruction& in);
  Flow string(const Instruction& in);
  Flow segment_move(const Instruction& in);
  Flow load_far_pointer(const Instruction& in, SegmentIndex segment);
  Flow far_transfer(const Instruction& in);
  Flow system(const Instruction& in, bool& known);
  Flow masked_move(const Instruction& in);
  void zero_low_vectors(bool all);
  void exchange_rax_r8(const Instruction& in);
  Flow gather(const Instruction& in);
  Flow adjust_rpl(const Instruction& in);
  void x87_pointers(const Instruction& in);
  // FWAIT in front of what faults on an x87 exception that waits: that comes before the memory operand's faults (SDM vol. 3, table 6-2).
  void wait_for_x87(const Instruction& in);

  // --- pieces
  // The effective address into RSI (offset), then the linear address there too, with segment checks outside 64-bit code.
  void effective_address(const Instruction& in, const ZydisDecodedOperand& memory, int64_t rsp_adjust = 0);
  void linear_address(const Instruction& in, const ZydisDecodedOperand& memory, uint32_t size, bool write, int64_t rsp_adjust = 0);
  void linear_from_offset(const ZydisDecodedOperand& memory, uint32_t size, bool write);
  // kOperandStack and kOperandChecked.
  uint32_t operand_flags(const ZydisDecodedOperand& memory) const;
  bool checks_segment(const ZydisDecodedOperand& memory) const;
  // An operand's value, zero-extended, into RAX; or RAX into an operand of `size` bytes.
  void read_operand(const Instruction& in, const ZydisDecodedOperand& operand);
  void write_operand(const Instruction& in, const ZydisDecodedOperand& operand, uint32_t size, int64_t rsp_adjust = 0);
  void load_flags();
  void store_flags();
  // call helper(c, ...): RDI is set here; the other arguments are in place.
  template <typename Function>
  void call(Function* helper) {
    as_.load(hRdi, self_offset());
    as_.call(reinterpret_cast<const void*>(helper));
  }
  void set_next_rip(const Instruction& in);
  void set_next_rip_keeping_rax(const Instruction& in);
  static uint32_t far_pointer_bytes(const Instruction& in);
  void two_part_operand(const Instruction& in, const ZydisDecodedOperand& memory, uint32_t size, uint32_t second);
  Flow commit_next_rip();                         // rip = next_rip: the block ends
  void advance(const Instruction& in);            // rip += length
  Flow advance_and_check(const Instruction& in);  // the same after a helper that may have written code or raised a request
  static uint32_t self_offset();

  [[nodiscard]] bool code64() const;
  void spill(uint32_t slot, ZydisRegister vector);   // to CpuState::operand[slot]
  void reload(uint32_t slot, ZydisRegister vector);  // 256 bits

  Assembler& as_;
  std::vector<Assembler::Label>* ends_ = nullptr;
  uint32_t key_;
  bool slow_;
  bool repeatable_;
};

}  // namespace lodge::engine::soft
