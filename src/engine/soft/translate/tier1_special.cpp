// Instructions that are not copied: control flow, stack, strings, segments, the system's.
#include <algorithm>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/translate/encoding.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/translate/tier1.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint32_t kSpill = offsetof(CpuState, operand);

uint32_t selector_offset(SegmentIndex s) {
  return static_cast<uint32_t>(offsetof(CpuState, seg) + s * sizeof(SegmentRegister) + offsetof(SegmentRegister, selector));
}

const ZydisDecodedOperand* memory_operand(const Instruction& in) {
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i)
    if (in.operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY) return &in.operand[i];
  return nullptr;
}

bool is_register_of(const ZydisDecodedOperand& operand, ZydisRegisterClass family) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(operand.reg.value) == family;
}

// F2 or F3 in front of a string instruction, the last one counting (Zydis knows F2 only where it has a meaning of its own).
uint8_t repeat_prefix(const Instruction& in) {
  uint8_t found = 0;
  for (uint32_t i = 0; i < in.decoded.raw.prefix_count; ++i) {
    const uint8_t value = in.decoded.raw.prefixes[i].value;
    if (value == 0xf2 || value == 0xf3) found = value;
  }
  return found;
}

}  // namespace

void Tier1::spill(uint32_t slot, ZydisRegister vector) {
  const uint32_t offset = kSpill + slot * 64;
  const uint8_t id = static_cast<uint8_t>(ZydisRegisterGetId(vector));
  if (ZydisRegisterGetClass(vector) == ZYDIS_REGCLASS_MMX) {  // movq gs:[offset], mm
    as_.byte(0x65), as_.byte(0x0f), as_.byte(0x7f), as_.modrm(0, id, 4), as_.byte(0x25), as_.dword(offset);
    return;
  }
  as_.vector_state(true, id, offset);
}

void Tier1::reload(uint32_t slot, ZydisRegister vector) {
  as_.vector_state(false, static_cast<uint8_t>(ZydisRegisterGetId(vector)), kSpill + slot * 64);
}

// Bytes of a near branch's target and return address. In 64-bit code AMD's processors honour 66h (APM vol. 3, 1.2.4); Zydis in the mode
// that is made for it changes the immediate's width only.
uint32_t Tier1::branch_bytes(const Instruction& in) const {
  return code64() && host_is_amd() && has_prefix(in, 0x66) && !in.decoded.raw.rex.W ? 2 : in.operand_bytes();
}

Tier1::Flow Tier1::near_branch(const Instruction& in) {
  const ZydisMnemonic m = in.mnemonic();
  const uint32_t size = branch_bytes(in);
  ZydisDecodedOperand target = in.operand[0];
  if (size == 2) target.size = 16;
  auto relative = [&] {  // RSI = target
    as_.load(hRsi, kRip);
    as_.lea(hRsi, hRsi, static_cast<int32_t>(target.imm.value.s + in.length()));
  };
  auto jump = [&] {
    if (code64() && size == 8) {
      as_.add_state_imm(kRip, static_cast<int32_t>(target.imm.value.s + in.length()), true);
      return;
    }
    relative();
    as_.move_imm(hRdx, size);
    call(rt_jump);
    commit_next_rip();
  };
  const bool is_relative = target.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && target.imm.is_relative;

  if (const int condition = condition_of(m); condition >= 0) {
    load_flags();
    const auto taken = as_.jump_if(static_cast<uint8_t>(condition));
    advance(in);
    epilogue();
    as_.bind(taken);
    jump();
    return Flow::End;
  }
  switch (m) {
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: {
      const uint32_t kind = m == ZYDIS_MNEMONIC_LOOP ? 0 : m == ZYDIS_MNEMONIC_LOOPE ? 1 : m == ZYDIS_MNEMONIC_LOOPNE ? 2 : 3;
      as_.move_imm(hRsi, kind);
      as_.move_imm(hRdx, in.decoded.address_width / 8);
      call(rt_loop);
      as_.alu(0x85, hRax, hRax, false);
      const auto taken = as_.jump_if(kNotZero);
      advance(in);
      epilogue();
      as_.bind(taken);
      jump();
      return Flow::End;
    }
    case ZYDIS_MNEMONIC_JMP:
      if (is_relative) {
        jump();
        return Flow::End;
      }
      read_operand(in, target);
      as_.move(hRsi, hRax);
      as_.move_imm(hRdx, size);
      call(rt_jump);
      return commit_next_rip();
    case ZYDIS_MNEMONIC_CALL:
      if (is_relative) {
        relative();
      } else {
        read_operand(in, target);
        as_.move(hRsi, hRax);
      }
      set_next_rip(in);
      as_.move_imm(hRdx, size);
      call(rt_call);
      return commit_next_rip();
    default:  // RET
      as_.move_imm(hRsi, size);
      as_.move_imm(hRdx, target.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && target.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT
                             ? target.imm.value.u & 0xffff
                             : 0);
      call(rt_return);
      return commit_next_rip();
  }
}

Tier1::Flow Tier1::push_pop(const Instruction& in) {
  const uint32_t size = in.operand_bytes();
  const auto& operand = in.operand[0];
  auto push = [&] {  // RAX
    as_.move(hRsi, hRax);
    as_.move_imm(hRdx, size);
    call(rt_push);
  };
  auto with_size = [&](auto* helper) {
    as_.move_imm(hRsi, size);
    call(helper);
  };
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_PUSH:
      if (is_register_of(operand, ZYDIS_REGCLASS_SEGMENT)) {
        as_.load(hRsi, selector_offset(segment_index(operand.reg.value)), 2);
        as_.move_imm(hRdx, size);
        call(rt_push_selector);
        return advance_and_check(in);
      }
      read_operand(in, operand);
      push();
      return advance_and_check(in);
    case ZYDIS_MNEMONIC_POP:
      if (is_register_of(operand, ZYDIS_REGCLASS_SEGMENT)) {
        set_next_rip(in);
        with_size(rt_peek_selector);
        as_.move_imm(hRsi, segment_index(operand.reg.value));
        as_.zero_extend(hRax, 2);
        as_.move(hRdx, hRax);
        call(sys_load_segment);
        with_size(rt_drop);
        return commit_next_rip();
      }
      if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
        with_size(rt_peek);
        write_operand(in, operand, size, size);
        with_size(rt_drop);
        return advance_and_check(in);
      }
      with_size(rt_pop);
      write_operand(in, operand, size);
      advance(in);
      return Flow::Next;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
      with_size(sys_pushf_value);
      push();
      return advance_and_check(in);
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
      set_next_rip(in);
      with_size(rt_peek);
      as_.move(hRsi, hRax);
      as_.move_imm(hRdx, size);
      call(sys_popf);
      with_size(rt_drop);
      return commit_next_rip();
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD: with_size(rt_pusha); return advance_and_check(in);
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD: with_size(rt_popa); return advance_and_check(in);
    case ZYDIS_MNEMONIC_ENTER:
      as_.move_imm(hRdx, in.operand[0].imm.value.u & 0xffff);
      as_.move_imm(hRcx, in.operand[1].imm.value.u & 0xff);
      with_size(rt_enter);
      return advance_and_check(in);
    default:  // LEAVE
      with_size(rt_leave);
      return advance_and_check(in);
  }
}

Tier1::Flow Tier1::string(const Instruction& in) {
  StringForm form{};
  const uint8_t opcode = in.decoded.opcode & 0xfe;
  switch (opcode) {
    case 0xa4: form.op = StringOp::Movs; break;
    case 0xaa: form.op = StringOp::Stos; break;
    case 0xac: form.op = StringOp::Lods; break;
    case 0xa6: form.op = StringOp::Cmps; break;
    case 0xae: form.op = StringOp::Scas; break;
    case 0x6c: form.op = StringOp::Ins; break;
    default: form.op = StringOp::Outs; break;
  }
  form.segment = kDs;
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    form.element = static_cast<uint8_t>(operand.size / 8);
    if (gpr_index(operand.mem.base) == kRsi) form.segment = segment_index(operand.mem.segment);
  }
  form.address_width = in.decoded.address_width / 8;
  const uint8_t prefix = repeat_prefix(in);
  form.repeat = prefix == 0xf3 ? 1 : prefix == 0xf2 ? 2 : 0;
  set_next_rip(in);
  as_.move_imm(hRsi, form.pack());
  call(rt_string);
  return commit_next_rip();
}

Tier1::Flow Tier1::segment_move(const Instruction& in) {
  if (is_register_of(in.operand[0], ZYDIS_REGCLASS_SEGMENT)) {
    read_operand(in, in.operand[1]);
    set_next_rip_keeping_rax(in);
    as_.move_imm(hRsi, segment_index(in.operand[0].reg.value));
    as_.zero_extend(hRax, 2);
    as_.move(hRdx, hRax);
    call(sys_load_segment);
    return commit_next_rip();
  }
  as_.load(hRax, selector_offset(segment_index(in.operand[1].reg.value)), 2);
  const bool memory = in.operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
  write_operand(in, in.operand[0], memory ? 2 : in.operand[0].size / 8u);
  return advance_and_check(in);
}

// LDS, LES, LFS, LGS, LSS: offset and selector from memory.
Tier1::Flow Tier1::load_far_pointer(const Instruction& in, SegmentIndex segment) {
  const uint32_t size = far_pointer_bytes(in);
  two_part_operand(in, *memory_operand(in), size, 2);
  set_next_rip(in);
  as_.load(hRdx, kSpill + 64, 2);
  as_.move_imm(hRsi, segment);
  call(sys_load_segment);
  if (segment == kSs) {  // LSS loads both halves of the stack pointer: no shadow, unlike MOV and POP
    as_.move_imm(hRcx, kShadowNone);
    as_.store(offsetof(CpuState, shadow), hRcx, 1);
  }
  as_.load(hRax, kSpill);
  write_operand(in, in.operand[0], size);
  return commit_next_rip();
}

// m16:16, m16:32, m16:64: the offset into spill slot 0, the selector into slot 1; BOUND's limits the same way.
void Tier1::two_part_operand(const Instruction& in, const ZydisDecodedOperand& memory, uint32_t size, uint32_t second) {
  // Two accesses: the second one's offset wraps with the address size.
  const uint32_t flags = operand_flags(memory);
  linear_address(in, memory, size, false);
  as_.move_imm(hRdx, size | flags);
  call(rt_load);
  as_.store(kSpill, hRax);
  effective_address(in, memory);
  as_.lea(hRsi, hRsi, static_cast<int32_t>(size));
  if (in.decoded.address_width < 64) as_.zero_extend(hRsi, in.decoded.address_width / 8);
  linear_from_offset(memory, second, false);
  as_.move_imm(hRdx, second | flags);
  call(rt_load);
  as_.store(kSpill + 64, hRax);
}

// The offset's width in memory: AMD's processors know no m16:64 (APM vol. 3, JMP far).
uint32_t Tier1::far_pointer_bytes(const Instruction& in) {
  const uint32_t size = in.operand_bytes();
  return size == 8 && host_is_amd() ? 4 : size;
}

Tier1::Flow Tier1::far_transfer(const Instruction& in) {
  const uint32_t size = in.operand_bytes();
  if (in.mnemonic() == ZYDIS_MNEMONIC_RET) {
    const auto& operand = in.operand[0];
    set_next_rip(in);
    as_.move_imm(hRsi, size);
    as_.move_imm(hRdx, operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? operand.imm.value.u & 0xffff : 0);
    call(sys_far_return);
    return commit_next_rip();
  }
  const auto& operand = in.operand[0];
  if (operand.type == ZYDIS_OPERAND_TYPE_POINTER) {
    set_next_rip(in);
    as_.move_imm(hRsi, operand.ptr.segment);
    as_.move_imm(hRdx, operand.ptr.offset);
  } else {
    two_part_operand(in, operand, far_pointer_bytes(in), 2);
    set_next_rip(in);
    as_.load(hRsi, kSpill + 64, 2);
    as_.load(hRdx, kSpill);
  }
  as_.move_imm(hRcx, size);
  if (in.mnemonic() == ZYDIS_MNEMONIC_JMP)
    call(sys_far_jump);
  else
    call(sys_far_call);
  return commit_next_rip();
}

Tier1::Flow Tier1::masked_move(const Instruction& in) {
  const ZydisMnemonic m = in.mnemonic();
  const auto* memory = memory_operand(in);
  if (m == ZYDIS_MNEMONIC_MASKMOVDQU || m == ZYDIS_MNEMONIC_VMASKMOVDQU || m == ZYDIS_MNEMONIC_MASKMOVQ) {
    ZydisRegister vectors[2] = {};
    uint32_t found = 0;
    for (uint32_t i = 0; i < in.decoded.operand_count && found < 2; ++i)
      if (in.operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && in.operand[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
        vectors[found++] = in.operand[i].reg.value;
    wait_for_x87(in);
    spill(0, vectors[0]);
    spill(1, vectors[1]);
    const MaskedForm form{static_cast<uint8_t>(segment_index(memory->mem.segment)), 1,
                          static_cast<uint8_t>(m == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16), static_cast<uint8_t>(in.decoded.address_width / 8)};
    effective_address(in, *memory);
    as_.move_imm(hRdx, form.pack());
    call(rt_masked_store_bytes);
    return advance_and_check(in);
  }
  const uint32_t element = m == ZYDIS_MNEMONIC_VMASKMOVPS || m == ZYDIS_MNEMONIC_VPMASKMOVD ? 4 : 8;
  const uint32_t total = in.decoded.raw.vex.L ? 32 : 16;
  const bool load = in.operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
  spill(1, in.operand[1].reg.value);
  if (!load) spill(0, in.operand[2].reg.value);
  effective_address(in, *memory);
  const MaskedForm form{static_cast<uint8_t>(segment_index(memory->mem.segment)), static_cast<uint8_t>(element),
                        static_cast<uint8_t>(total), static_cast<uint8_t>(in.decoded.address_width / 8)};
  as_.move_imm(hRdx, form.pack());
  if (!load) {
    call(rt_masked_store);
    return advance_and_check(in);
  }
  call(rt_masked_load);
  reload(0, in.operand[0].reg.value);
  advance(in);
  return Flow::Next;
}

Tier1::Flow Tier1::gather(const Instruction& in) {
  GatherForm form{};
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD: form.index_size = 4, form.element_size = 4; break;
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ: form.index_size = 4, form.element_size = 8; break;
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD: form.index_size = 8, form.element_size = 4; break;
    default: form.index_size = 8, form.element_size = 8; break;
  }
  const auto& memory = *memory_operand(in);
  const uint32_t vector_bytes = in.decoded.raw.vex.L ? 32 : 16;
  form.count = static_cast<uint8_t>(vector_bytes / std::max(form.index_size, form.element_size));
  form.scale_shift = memory.mem.scale == 8 ? 3 : memory.mem.scale == 4 ? 2 : memory.mem.scale == 2 ? 1 : 0;
  form.address_width = in.decoded.address_width / 8;
  form.segment = static_cast<uint8_t>(segment_index(memory.mem.segment));
  spill(0, in.operand[0].reg.value);
  spill(1, memory.mem.index);
  spill(2, in.operand[2].reg.value);
  effective_address(in, memory);  // without the vector index
  as_.move_imm(hRdx, form.pack());
  call(rt_gather);
  reload(0, in.operand[0].reg.value);
  reload(2, in.operand[2].reg.value);
  as_.alu_imm8(7, hRax, static_cast<int8_t>(GatherEnd::Again), false);
  const auto complete = as_.jump_if(kBelow);
  const auto fault = as_.jump_if(kNotZero);
  epilogue();
  as_.bind(fault);
  call(rt_gather_fault);
  as_.bind(complete);
  advance(in);
  return Flow::Next;
}

void Tier1::set_next_rip_keeping_rax(const Instruction& in) {
  as_.load(hRcx, kRip);
  as_.lea(hRcx, hRcx, static_cast<int32_t>(in.length()), code64());
  as_.store(kNextRip, hRcx);
}

void Tier1::exchange_rax_r8(const Instruction& in) {
  const uint32_t size = in.decoded.raw.rex.W ? 8 : has_prefix(in, 0x66) ? 2 : 4;
  as_.load(hRax, gpr_offset(kRax), size);
  as_.load(hRcx, gpr_offset(8), size);
  as_.store(gpr_offset(8), hRax, size == 2 ? 2 : 8);
  as_.store(gpr_offset(kRax), hRcx, size == 2 ? 2 : 8);
  advance(in);
}

// VZEROUPPER and VZEROALL outside 64-bit code: registers 0 to 7 (SDM vol. 2C).
void Tier1::zero_low_vectors(bool all) {
  for (uint8_t r = 0; r < 8; ++r) {
    as_.byte(0xc5);
    if (all) {  // vpxor r, r, r
      as_.byte(static_cast<uint8_t>(0x81 | (~r & 15) << 3));
      as_.byte(0xef);
    } else {  // vmovaps r, r
      as_.byte(0xf8);
      as_.byte(0x28);
    }
    as_.modrm(3, r, r);
  }
}

bool Tier1::special(const Instruction& in, Flow& flow) {
  const ZydisMnemonic m = in.mnemonic();
  flow = Flow::Next;
  const bool prefetch =
      in.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in.decoded.opcode_map == ZYDIS_OPCODE_MAP_0F && in.decoded.opcode == 0x0d;
  if (prefetch || in.decoded.meta.category == ZYDIS_CATEGORY_WIDENOP || in.decoded.meta.category == ZYDIS_CATEGORY_PREFETCH ||
      in.decoded.meta.category == ZYDIS_CATEGORY_PREFETCHWT1 || in.decoded.meta.category == ZYDIS_CATEGORY_CET) {
    advance(in);  // hints: no access, no fault
    return true;
  }
  if (in.decoded.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR &&
      (m == ZYDIS_MNEMONIC_JMP || m == ZYDIS_MNEMONIC_CALL || m == ZYDIS_MNEMONIC_RET)) {
    flow = far_transfer(in);
    return true;
  }
  if (condition_of(m) >= 0) {
    flow = near_branch(in);
    return true;
  }
  if (in.decoded.meta.category == ZYDIS_CATEGORY_STRINGOP || in.decoded.meta.category == ZYDIS_CATEGORY_IOSTRINGOP) {
    flow = string(in);
    return true;
  }
  if (m >= ZYDIS_MNEMONIC_VGATHERDPD && m <= ZYDIS_MNEMONIC_VGATHERQPS) {
    flow = gather(in);
    return true;
  }
  switch (m) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: flow = near_branch(in); return true;

    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE: flow = push_pop(in); return true;

    case ZYDIS_MNEMONIC_NOP: advance(in); return true;
    case ZYDIS_MNEMONIC_FNCLEX:
      call(rt_x87_settle);
      as_.byte(0xdb), as_.byte(0xe2);
      advance(in);
      return true;
    case ZYDIS_MNEMONIC_PAUSE:
      if (in.decoded.raw.rex.B && host_is_amd()) {  // with REX.B AMD's processors take it for XCHG with R8
        exchange_rax_r8(in);
        return true;
      }
      as_.byte(0xf3), as_.byte(0x90);
      advance(in);
      return true;
    case ZYDIS_MNEMONIC_LEA: {
      effective_address(in, in.operand[1]);
      as_.move(hRax, hRsi);
      write_operand(in, in.operand[0], in.operand_bytes());
      advance(in);
      return true;
    }
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB: {  // caches need no care here, but the address is checked like a load of a byte
      const auto& memory = *memory_operand(in);
      linear_address(in, memory, 1, false);
      as_.move_imm(hRdx, 1 | operand_flags(memory));
      call(rt_load);
      advance(in);
      return true;
    }
    case ZYDIS_MNEMONIC_CLD:
      as_.alu_state_imm32(4, offsetof(CpuState, eflags_system), ~eflags::kDf);
      advance(in);
      return true;
    case ZYDIS_MNEMONIC_STD:
      as_.alu_state_imm32(1, offsetof(CpuState, eflags_system), eflags::kDf);
      advance(in);
      return true;
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
      emit_raise(kUd);
      flow = Flow::End;
      return true;

    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
      if (!repeatable_) break;
      call(rt_random);
      write_operand(in, in.operand[0], in.operand_bytes());
      as_.store_imm16(offsetof(CpuState, flags_of), (eflags::kCf | 2) << 8);  // CF: a number was given; the others are cleared
      advance(in);
      return true;

    case ZYDIS_MNEMONIC_XLAT:
      as_.move_imm(hRsi, segment_index(memory_operand(in)->mem.segment));
      as_.move_imm(hRdx, in.decoded.address_width / 8);
      call(rt_xlat);
      advance(in);
      return true;
    case ZYDIS_MNEMONIC_BOUND:
      two_part_operand(in, in.operand[1], in.operand_bytes(), in.operand_bytes());
      as_.load(hRsi, gpr_offset(gpr_index(in.operand[0].reg.value)), 4);
      as_.move_imm(hRdx, in.operand_bytes());
      call(rt_bound);
      advance(in);
      return true;
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_SALC:
      as_.move_imm(hRsi, in.decoded.opcode);
      as_.move_imm(hRdx, in.decoded.raw.imm[0].size ? in.decoded.raw.imm[0].value.u & 0xff : 0);
      call(rt_decimal);
      advance(in);
      return true;

    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
      if (code64()) break;
      zero_low_vectors(m == ZYDIS_MNEMONIC_VZEROALL);
      advance(in);
      return true;

    case ZYDIS_MNEMONIC_LDS: flow = load_far_pointer(in, kDs); return true;
    case ZYDIS_MNEMONIC_LES: flow = load_far_pointer(in, kEs); return true;
    case ZYDIS_MNEMONIC_LFS: flow = load_far_pointer(in, kFs); return true;
    case ZYDIS_MNEMONIC_LGS: flow = load_far_pointer(in, kGs); return true;
    case ZYDIS_MNEMONIC_LSS: flow = load_far_pointer(in, kSs); return true;

    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_MASKMOVQ: flow = masked_move(in); return true;
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ: flow = gather(in); return true;

    case ZYDIS_MNEMONIC_MOV:
      if (is_register_of(in.operand[0], ZYDIS_REGCLASS_SEGMENT) || is_register_of(in.operand[1], ZYDIS_REGCLASS_SEGMENT)) {
        flow = segment_move(in);
        return true;
      }
      break;
    default: break;
  }
  bool known = true;
  flow = system(in, known);
  return known;
}

}  // namespace lodge::engine::soft
