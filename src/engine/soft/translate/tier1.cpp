#include "engine/soft/translate/tier1.hpp"

#include <algorithm>

#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/translate/runtime.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint32_t kFlags = offsetof(CpuState, flags_of);
static_assert(offsetof(CpuState, flags_low) == kFlags + 1, "AL is OF, AH what LAHF gives");

uint32_t base_offset(SegmentIndex segment) {
  return static_cast<uint32_t>(offsetof(CpuState, seg) + segment * sizeof(SegmentRegister) + offsetof(SegmentRegister, base));
}

// The alignment check of SSE operands comes before the segment's limit. In 64-bit code for FS and GS only.
uint64_t segment_linear_c(CpuState* c, uint32_t segment, uint64_t offset, uint32_t size, uint32_t write) {
  const uint32_t bytes = size & kOperandSize;
  if (!code64(*c) && (size & kOperandAligned) && (c->seg[segment].attributes & attr::kPresent))
    rt_check_aligned(c, (c->seg[segment].base + offset) & 0xffffffff, size);
  return segment_linear(*c, segment, offset, bytes, write);
}

}  // namespace

uint32_t Tier1::self_offset() { return offsetof(CpuState, self); }
bool Tier1::code64() const { return key_ & key::kCode64; }

void Tier1::prologue() { as_.alu_imm8(5, hRsp, 8); }
void Tier1::epilogue() {
  if (ends_) {
    ends_->push_back(as_.jump());
    return;
  }
  as_.alu_imm8(0, hRsp, 8);
  as_.ret();
}

void Tier1::emit_raise(Vector vector) {
  as_.move_imm(hRsi, vector);
  call(rt_raise);
}

void Tier1::emit_raise_error(Vector vector, uint32_t error_code) {
  as_.move_imm(hRsi, vector);
  as_.move_imm(hRdx, error_code);
  call(rt_raise_error);
}

// EFLAGS' arithmetic part through AX: OF comes back as the overflow of 7Fh + OF, the rest by SAHF.
void Tier1::load_flags() {
  as_.load(hRax, kFlags, 2);
  as_.add_al_imm(0x7f);
  as_.sahf();
}

void Tier1::store_flags() {
  as_.lahf();
  as_.set_overflow_al();
  as_.store(kFlags, hRax, 2);
}

void Tier1::set_next_rip(const Instruction& in) {
  as_.load(hRax, kRip);
  as_.lea(hRax, hRax, static_cast<int32_t>(in.length()), code64());
  as_.store(kNextRip, hRax);
}

Tier1::Flow Tier1::commit_next_rip() {
  as_.load(hRax, kNextRip);
  as_.store(kRip, hRax);
  return Flow::End;
}

void Tier1::advance(const Instruction& in) { as_.add_state_imm(kRip, static_cast<int32_t>(in.length()), code64()); }

Tier1::Flow Tier1::advance_and_check(const Instruction& in) {
  advance(in);
  as_.compare_state_imm8(offsetof(CpuState, request), 0);
  const auto go_on = as_.jump_if(kZero);
  as_.store_imm32(offsetof(CpuState, left_early), 1);
  epilogue();
  as_.bind(go_on);
  return Flow::Next;
}

bool Tier1::checks_segment(const ZydisDecodedOperand& memory) const {
  if (code64()) return false;
  const SegmentIndex segment = segment_index(memory.mem.segment);
  return (key_ & key::kSegmented) || (segment != kDs && segment != kEs && segment != kSs);
}

uint32_t Tier1::operand_flags(const ZydisDecodedOperand& memory) const {
  return (memory.mem.segment == ZYDIS_REGISTER_SS ? kOperandStack : 0) | (checks_segment(memory) ? kOperandChecked : 0);
}

void Tier1::effective_address(const Instruction& in, const ZydisDecodedOperand& memory, int64_t rsp_adjust) {
  const auto& mem = memory.mem;
  const int64_t displacement = mem.disp.has_displacement ? mem.disp.value : 0;
  const ZydisRegister base = mem.base;
  if (base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP) {
    as_.load(hRsi, kRip);
    as_.move_imm(hRax, static_cast<uint64_t>(displacement + in.length()));
    as_.add(hRsi, hRax);
  } else {
    const int base_index = base == ZYDIS_REGISTER_NONE ? -1 : gpr_index(base);
    const int64_t total = displacement + (base_index == kRsp ? rsp_adjust : 0);
    if (base_index >= 0) {
      as_.load(hRsi, gpr_offset(base_index));
      if (total == static_cast<int32_t>(total)) {
        if (total) as_.lea(hRsi, hRsi, static_cast<int32_t>(total));
      } else {
        as_.move_imm(hRax, static_cast<uint64_t>(total));
        as_.add(hRsi, hRax);
      }
    } else {
      as_.move_imm(hRsi, static_cast<uint64_t>(total));
    }
    if (mem.index != ZYDIS_REGISTER_NONE && gpr_index(mem.index) >= 0) {
      as_.load(hRax, gpr_offset(gpr_index(mem.index)));
      const uint8_t scale = mem.scale == 8 ? 3 : mem.scale == 4 ? 2 : mem.scale == 2 ? 1 : 0;
      as_.lea_indexed(hRsi, hRsi, hRax, scale);
    }
  }
  if (in.decoded.address_width < 64) as_.zero_extend(hRsi, in.decoded.address_width / 8);
}

void Tier1::linear_address(const Instruction& in, const ZydisDecodedOperand& memory, uint32_t size, bool write, int64_t rsp_adjust) {
  effective_address(in, memory, rsp_adjust);
  linear_from_offset(memory, size, write);
}

void Tier1::linear_from_offset(const ZydisDecodedOperand& memory, uint32_t size, bool write) {
  const SegmentIndex segment = segment_index(memory.mem.segment);
  if (code64()) {
    if (segment != kFs && segment != kGs) return;
    if (!host_is_amd()) return as_.add_from_state(hRsi, base_offset(segment));
  } else if (!checks_segment(memory)) {
    return;
  }
  as_.move(hRdx, hRsi);
  as_.move_imm(hRsi, segment);
  as_.move_imm(hRcx, size);
  as_.move_imm(hR8, write);
  call(segment_linear_c);
  as_.move(hRsi, hRax);
}

void Tier1::read_operand(const Instruction& in, const ZydisDecodedOperand& operand) {
  switch (operand.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: {
      const int r = gpr_index(operand.reg.value);
      as_.load(hRax, gpr_offset(r) + (is_high_byte(operand.reg.value) ? 1 : 0), operand.size / 8u);
      break;
    }
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: as_.move_imm(hRax, operand.imm.value.u); break;
    case ZYDIS_OPERAND_TYPE_MEMORY: {
      const uint32_t size = operand.size / 8u;
      linear_address(in, operand, size, false);
      as_.move_imm(hRdx, size | operand_flags(operand));
      call(rt_load);
      break;
    }
    default: break;
  }
}

void Tier1::write_operand(const Instruction& in, const ZydisDecodedOperand& operand, uint32_t size, int64_t rsp_adjust) {
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    if (size == 4) as_.zero_extend(hRax, 4);
    as_.store(gpr_offset(gpr_index(operand.reg.value)), hRax, size == 4 ? 8 : size);
    return;
  }
  as_.store(offsetof(CpuState, operand), hRax);
  linear_address(in, operand, size, true, rsp_adjust);
  as_.move_imm(hRdx, size | operand_flags(operand));
  as_.load(hRcx, offsetof(CpuState, operand));
  call(rt_store);
}

// #UD and #NM that follow from the mode (SDM vol. 3, table 2-2 and 13.1; vol. 2, "exceptions type").
bool Tier1::unavailable(const Instruction& in) {
  // 0F 0D: prefetches; in its register form AMD's processors see no instruction, Intel's a NOP.
  const bool prefetch =
      in.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in.decoded.opcode_map == ZYDIS_OPCODE_MAP_0F && in.decoded.opcode == 0x0d;
  if (prefetch ? in.decoded.raw.modrm.mod == 3 && host_is_amd() : !offered(in)) {
    emit_raise(kUd);
    return true;
  }
  if (prefetch) return false;
  bool mmx = false, vector = false;
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const ZydisRegister r = operand.reg.value;
    mmx = mmx || (r >= ZYDIS_REGISTER_MM0 && r <= ZYDIS_REGISTER_MM7);
    vector = vector || (r >= ZYDIS_REGISTER_XMM0 && r <= ZYDIS_REGISTER_XMM31) || (r >= ZYDIS_REGISTER_YMM0 && r <= ZYDIS_REGISTER_YMM31);
  }
  const ZydisMnemonic m = in.mnemonic();
  const bool x87 = is_x87(in) || m == ZYDIS_MNEMONIC_FXSAVE || m == ZYDIS_MNEMONIC_FXRSTOR || m == ZYDIS_MNEMONIC_FXSAVE64 ||
                   m == ZYDIS_MNEMONIC_FXRSTOR64;
  mmx = mmx || m == ZYDIS_MNEMONIC_EMMS;
  const bool vex = in.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
  const bool xsave = in.decoded.meta.category == ZYDIS_CATEGORY_XSAVE || in.decoded.meta.category == ZYDIS_CATEGORY_XSAVEOPT;
  vector = vector || m == ZYDIS_MNEMONIC_LDMXCSR || m == ZYDIS_MNEMONIC_STMXCSR || m == ZYDIS_MNEMONIC_VLDMXCSR ||
           m == ZYDIS_MNEMONIC_VSTMXCSR || m == ZYDIS_MNEMONIC_VZEROUPPER || m == ZYDIS_MNEMONIC_VZEROALL;
  auto raise_if = [&](bool condition, Vector what) {
    if (condition) emit_raise(what);
    return condition;
  };
  // No 64-bit element goes to or from a general register outside 64-bit code: AMD's processors see no instruction then, Intel's ignore
  // VEX.W, as all do with the other instructions.
  const bool element64 =
      m == ZYDIS_MNEMONIC_VPEXTRD || m == ZYDIS_MNEMONIC_VPEXTRQ || m == ZYDIS_MNEMONIC_VPINSRD || m == ZYDIS_MNEMONIC_VPINSRQ;
  if (raise_if(element64 && !code64() && in.decoded.raw.vex.W && host_is_amd(), kUd)) return true;
  if (m == ZYDIS_MNEMONIC_FWAIT) return raise_if(key_ & key::kWaitNm, kNm);
  if (x87) return raise_if(key_ & key::kX87Nm, kNm);
  if (xsave && m != ZYDIS_MNEMONIC_XGETBV && m != ZYDIS_MNEMONIC_XSETBV) {
    return raise_if(key_ & key::kTs, kNm);  // CR4.OSXSAVE: rt_xsave()
  }
  if (vex && vector) return raise_if(key_ & key::kAvxUd, kUd) || raise_if(key_ & key::kTs, kNm);
  if (vector) return raise_if(key_ & key::kSseUd, kUd) || raise_if(key_ & key::kTs, kNm);
  if (mmx) return raise_if(key_ & key::kX87Em, kUd) || raise_if(key_ & key::kX87Nm, kNm);
  return false;
}

void Tier1::x87_pointers(const Instruction& in) {
  if (!is_x87(in)) return;
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FWAIT: return;  // control instructions leave the pointers (SDM vol. 1, 8.1.8)
    case ZYDIS_MNEMONIC_FNINIT:
      as_.store_imm32(offsetof(CpuState, x87_ip), 0, true);
      as_.store_imm32(offsetof(CpuState, x87_dp), 0, true);
      as_.store_imm32(offsetof(CpuState, x87_last_dp), 0, true);
      as_.store_imm16(offsetof(CpuState, x87_opcode), 0);
      as_.store_imm16(offsetof(CpuState, x87_last_opcode), 0);
      return;
    default: break;
  }
  as_.load(hRax, kRip);
  as_.store(offsetof(CpuState, x87_ip), hRax);
  const uint16_t opcode = static_cast<uint16_t>((in.decoded.opcode & 7) << 8 | in.bytes[in.decoded.raw.modrm.offset]);
  as_.store_imm16(offsetof(CpuState, x87_last_opcode), opcode);
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    if (in.operand[i].type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    as_.store(offsetof(CpuState, x87_last_dp_ip), hRax);
    effective_address(in, in.operand[i]);
    as_.store(offsetof(CpuState, x87_last_dp), hRsi);
  }
}

void Tier1::wait_for_x87(const Instruction& in) {
  bool waits = false;
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE: return;
    default: waits = is_x87(in);
  }
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    waits = waits || (operand.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(operand.reg.value) == ZYDIS_REGCLASS_MMX);
  }
  if (waits) as_.byte(0x9b);
}

Tier1::Way Tier1::way_of(const Instruction& in, uint32_t key, bool repeatable) {
  // The decision is made where the code is emitted; here into nothing.
  uint8_t nowhere[1];
  Assembler as(nowhere, nowhere);
  Tier1 tier(as, key, false, repeatable);
  if (tier.unavailable(in)) return Way::Raise;
  Flow flow = Flow::Next;
  return tier.special(in, flow) ? Way::Own : Way::Copy;
}

bool Tier1::emit(const Instruction& in) {
  if (unavailable(in)) return true;
  const Flow flow = translate(in);
  if (flow == Flow::End) epilogue();
  return flow == Flow::End;
}

Tier1::Flow Tier1::translate(const Instruction& in) {
  Flow flow = Flow::Next;
  if (special(in, flow)) return flow;
  return copy(in);
}

}  // namespace lodge::engine::soft
