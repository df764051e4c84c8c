// System instructions: operands are read here, the work is cpu/system.hpp's.
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/translate/tier1.hpp"

namespace lodge::engine::soft {

namespace {

bool is_control(const ZydisDecodedOperand& o) {
  return o.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o.reg.value) == ZYDIS_REGCLASS_CONTROL;
}
bool is_debug(const ZydisDecodedOperand& o) {
  return o.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o.reg.value) == ZYDIS_REGCLASS_DEBUG;
}

struct StateImage {
  XsaveKind kind;
  bool wide;
};

bool stores(XsaveKind kind) { return kind != XsaveKind::Fxrstor && kind != XsaveKind::Xrstor && kind != XsaveKind::Xrstors; }

bool state_image(ZydisMnemonic m, StateImage& image) {
  switch (m) {
    case ZYDIS_MNEMONIC_FXSAVE: image = {XsaveKind::Fxsave, false}; return true;
    case ZYDIS_MNEMONIC_FXSAVE64: image = {XsaveKind::Fxsave, true}; return true;
    case ZYDIS_MNEMONIC_FXRSTOR: image = {XsaveKind::Fxrstor, false}; return true;
    case ZYDIS_MNEMONIC_FXRSTOR64: image = {XsaveKind::Fxrstor, true}; return true;
    case ZYDIS_MNEMONIC_XSAVE: image = {XsaveKind::Xsave, false}; return true;
    case ZYDIS_MNEMONIC_XSAVE64: image = {XsaveKind::Xsave, true}; return true;
    case ZYDIS_MNEMONIC_XSAVEOPT: image = {XsaveKind::Xsaveopt, false}; return true;
    case ZYDIS_MNEMONIC_XSAVEOPT64: image = {XsaveKind::Xsaveopt, true}; return true;
    case ZYDIS_MNEMONIC_XSAVEC: image = {XsaveKind::Xsavec, false}; return true;
    case ZYDIS_MNEMONIC_XSAVEC64: image = {XsaveKind::Xsavec, true}; return true;
    case ZYDIS_MNEMONIC_XSAVES: image = {XsaveKind::Xsaves, false}; return true;
    case ZYDIS_MNEMONIC_XSAVES64: image = {XsaveKind::Xsaves, true}; return true;
    case ZYDIS_MNEMONIC_XRSTOR: image = {XsaveKind::Xrstor, false}; return true;
    case ZYDIS_MNEMONIC_XRSTOR64: image = {XsaveKind::Xrstor, true}; return true;
    case ZYDIS_MNEMONIC_XRSTORS: image = {XsaveKind::Xrstors, false}; return true;
    case ZYDIS_MNEMONIC_XRSTORS64: image = {XsaveKind::Xrstors, true}; return true;
    default: return false;
  }
}

}  // namespace

// ARPL. Memory is written only when the RPL changes, and the flag only when that has succeeded.
Tier1::Flow Tier1::adjust_rpl(const Instruction& in) {
  constexpr uint32_t kSource = offsetof(CpuState, operand) + 64, kNewFlags = kSource + 8, kOldFlags = kSource + 16;
  constexpr uint32_t kFlags = offsetof(CpuState, flags_low);
  read_operand(in, in.operand[1]);
  as_.store(kSource, hRax);
  read_operand(in, in.operand[0]);
  as_.move(hRsi, hRax);
  as_.load(hRdx, kSource);
  as_.load(hRcx, kFlags, 1);
  as_.store(kOldFlags, hRcx);
  call(sys_arpl);
  // The new flags wait beside the operands.
  as_.load(hRcx, kOldFlags);
  as_.load(hRdx, kFlags, 1);
  as_.store(kNewFlags, hRdx);
  as_.store(kFlags, hRcx, 1);
  as_.alu_imm8(4, hRdx, eflags::kZf);
  const auto same = as_.jump_if(kZero);
  write_operand(in, in.operand[0], 2);
  as_.bind(same);
  as_.load(hRdx, kNewFlags);
  as_.store(kFlags, hRdx, 1);
  return advance_and_check(in);
}

Tier1::Flow Tier1::system(const Instruction& in, bool& known) {
  const ZydisMnemonic m = in.mnemonic();
  const uint32_t size = in.operand_bytes();
  // The simplest shape: no operand, the block ends.
  auto plain = [&](auto* helper) {
    set_next_rip(in);
    call(helper);
    return commit_next_rip();
  };
  auto with_size = [&](auto* helper) {
    set_next_rip(in);
    as_.move_imm(hRsi, size);
    call(helper);
    return commit_next_rip();
  };
  // One value operand in RSI.
  auto with_value = [&](auto* helper, bool sixteen_bits) {
    read_operand(in, in.operand[0]);
    if (sixteen_bits) as_.zero_extend(hRax, 2);
    as_.move(hRsi, hRax);
    set_next_rip(in);
    call(helper);
    return commit_next_rip();
  };
  // A result for operand 0: two bytes in memory, the operand's width in a register.
  auto store_selector = [&](auto* helper) {
    call(helper);
    const bool memory = in.operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    write_operand(in, in.operand[0], memory ? 2 : size);
    return advance_and_check(in);
  };
  auto table = [&](auto* helper, bool write) {
    const uint32_t pseudo_descriptor = code64() ? 10 : 6;
    linear_address(in, in.operand[0], pseudo_descriptor, write);
    return helper;
  };
  auto access_rights = [&](auto* helper) {  // LAR, LSL
    read_operand(in, in.operand[1]);
    as_.zero_extend(hRax, 2);
    as_.move(hRsi, hRax);
    as_.load(hRdx, gpr_offset(gpr_index(in.operand[0].reg.value)));
    as_.move_imm(hRcx, size);
    call(helper);
    // All 64 bits: a selector that is refused leaves the whole register as it was.
    as_.store(gpr_offset(gpr_index(in.operand[0].reg.value)), hRax, size == 2 ? 2 : 8);
    advance(in);
    return Flow::Next;
  };
  auto interrupt = [&](uint32_t vector, SoftwareInterrupt kind) {
    set_next_rip(in);
    as_.move_imm(hRsi, vector);
    as_.move_imm(hRdx, kind);
    call(sys_software_interrupt);
    return commit_next_rip();
  };
  auto fs_or_gs = [&](bool gs, bool write) {
    if (write) {
      read_operand(in, in.operand[0]);
      as_.move(hRdx, hRax);
    }
    as_.move_imm(hRsi, gs ? kGs : kFs);
    if (write) {
      set_next_rip(in);
      call(sys_write_fsgsbase);
      return commit_next_rip();
    }
    call(sys_read_fsgsbase);
    write_operand(in, in.operand[0], in.operand[0].size / 8u);
    advance(in);
    return Flow::Next;
  };

  // Refused before any operand is looked at.
  switch (m) {
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL:
      if (!(key_ & key::kProtected)) {
        emit_raise(kUd);
        return Flow::End;
      }
      break;
    default: break;
  }
  switch (m) {
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_LMSW:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_INVPCID:
      if (key_ & (key::kUser | key::kV86)) {
        emit_raise_error(kGp, 0);
        return Flow::End;
      }
      break;
    default: break;
  }

  StateImage image;
  if (state_image(m, image)) {
    const auto& memory = in.operand[0];
    // A privileged one is refused before its operand is looked at.
    const bool refused = (image.kind == XsaveKind::Xsaves || image.kind == XsaveKind::Xrstors) && (key_ & (key::kUser | key::kV86));
    if (!refused) {
      effective_address(in, memory);
      as_.store(offsetof(CpuState, operand), hRsi);
      linear_from_offset(memory, image.kind <= XsaveKind::Fxrstor ? 512 : 576, stores(image.kind));
    }
    as_.move_imm(hRdx, static_cast<uint32_t>(image.kind));
    as_.move_imm(hRcx, image.wide);
    as_.move_imm(hR8, segment_index(memory.mem.segment));
    as_.load(hR9, offsetof(CpuState, operand));
    call(rt_xsave);
    return advance_and_check(in);
  }

  switch (m) {
    case ZYDIS_MNEMONIC_MOV: {
      if (is_control(in.operand[0]) || is_debug(in.operand[0])) {
        read_operand(in, in.operand[1]);
        as_.move(hRdx, hRax);
        as_.move_imm(hRsi, static_cast<uint32_t>(ZydisRegisterGetId(in.operand[0].reg.value)));
        set_next_rip(in);
        if (is_control(in.operand[0]))
          call(sys_write_cr);
        else
          call(sys_write_dr);
        return commit_next_rip();
      }
      if (is_control(in.operand[1]) || is_debug(in.operand[1])) {
        as_.move_imm(hRsi, static_cast<uint32_t>(ZydisRegisterGetId(in.operand[1].reg.value)));
        if (is_control(in.operand[1]))
          call(sys_read_cr);
        else
          call(sys_read_dr);
        write_operand(in, in.operand[0], code64() ? 8 : 4);
        advance(in);
        return Flow::Next;
      }
      known = false;
      return Flow::Next;
    }
    case ZYDIS_MNEMONIC_LLDT: return with_value(sys_lldt, true);
    case ZYDIS_MNEMONIC_LTR: return with_value(sys_ltr, true);
    case ZYDIS_MNEMONIC_LMSW: return with_value(sys_lmsw, true);
    case ZYDIS_MNEMONIC_VERR: return with_value(sys_verr, true);
    case ZYDIS_MNEMONIC_VERW: return with_value(sys_verw, true);
    case ZYDIS_MNEMONIC_SLDT: return store_selector(sys_sldt);
    case ZYDIS_MNEMONIC_STR: return store_selector(sys_str);
    case ZYDIS_MNEMONIC_SMSW: return store_selector(sys_smsw);
    case ZYDIS_MNEMONIC_SGDT: call(table(sys_sgdt, true)); return advance_and_check(in);
    case ZYDIS_MNEMONIC_SIDT: call(table(sys_sidt, true)); return advance_and_check(in);
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
      set_next_rip(in);
      table(sys_lgdt, false);
      as_.move_imm(hRdx, code64() ? 8 : size);
      if (m == ZYDIS_MNEMONIC_LGDT)
        call(sys_lgdt);
      else
        call(sys_lidt);
      return commit_next_rip();
    case ZYDIS_MNEMONIC_LAR: return access_rights(sys_lar);
    case ZYDIS_MNEMONIC_LSL: return access_rights(sys_lsl);
    case ZYDIS_MNEMONIC_ARPL: return adjust_rpl(in);

    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ: return with_size(sys_iret);
    case ZYDIS_MNEMONIC_INT: return interrupt(static_cast<uint32_t>(in.operand[0].imm.value.u & 0xff), kIntN);
    case ZYDIS_MNEMONIC_INT3: return interrupt(3, kInt3);
    case ZYDIS_MNEMONIC_INT1: return interrupt(1, kInt1);
    case ZYDIS_MNEMONIC_INTO: {
      load_flags();
      const auto overflow = as_.jump_if(kOverflow);
      advance(in);
      epilogue();
      as_.bind(overflow);
      return interrupt(4, kInto);
    }
    case ZYDIS_MNEMONIC_SYSCALL: return plain(sys_syscall);
    case ZYDIS_MNEMONIC_SYSENTER: return plain(sys_sysenter);
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SYSEXIT: {
      const bool wide = (in.decoded.attributes & ZYDIS_ATTRIB_HAS_REX) && in.decoded.raw.rex.W;
      set_next_rip(in);
      as_.move_imm(hRsi, wide ? 8 : 4);
      if (m == ZYDIS_MNEMONIC_SYSRET)
        call(sys_sysret);
      else
        call(sys_sysexit);
      return commit_next_rip();
    }

    case ZYDIS_MNEMONIC_CLTS: return plain(sys_clts);
    case ZYDIS_MNEMONIC_INVLPG:
      linear_address(in, in.operand[0], 1, false);
      set_next_rip(in);
      call(sys_invlpg);
      return commit_next_rip();
    case ZYDIS_MNEMONIC_INVPCID:
      linear_address(in, in.operand[1], 16, false);
      set_next_rip(in);
      as_.move(hRdx, hRsi);
      as_.load(hRsi, gpr_offset(gpr_index(in.operand[0].reg.value)), code64() ? 8 : 4);
      call(sys_invpcid);
      return commit_next_rip();
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD: return plain(sys_wbinvd);
    case ZYDIS_MNEMONIC_RDMSR: return plain(sys_rdmsr);
    case ZYDIS_MNEMONIC_WRMSR: return plain(sys_wrmsr);
    case ZYDIS_MNEMONIC_XGETBV: return plain(sys_xgetbv);
    case ZYDIS_MNEMONIC_XSETBV: return plain(sys_xsetbv);
    case ZYDIS_MNEMONIC_CPUID: return plain(sys_cpuid);
    case ZYDIS_MNEMONIC_RDTSC: return plain(sys_rdtsc);
    case ZYDIS_MNEMONIC_RDTSCP: return plain(sys_rdtscp);
    case ZYDIS_MNEMONIC_RDPMC: return plain(sys_rdpmc);
    case ZYDIS_MNEMONIC_RDPID:
      call(sys_rdpid);
      write_operand(in, in.operand[0], code64() ? 8 : 4);
      advance(in);
      return Flow::Next;
    case ZYDIS_MNEMONIC_SWAPGS: return plain(sys_swapgs);
    case ZYDIS_MNEMONIC_RDFSBASE: return fs_or_gs(false, false);
    case ZYDIS_MNEMONIC_RDGSBASE: return fs_or_gs(true, false);
    case ZYDIS_MNEMONIC_WRFSBASE: return fs_or_gs(false, true);
    case ZYDIS_MNEMONIC_WRGSBASE: return fs_or_gs(true, true);
    case ZYDIS_MNEMONIC_CLAC: return plain(sys_clac);
    case ZYDIS_MNEMONIC_STAC: return plain(sys_stac);
    case ZYDIS_MNEMONIC_CLI: return plain(sys_cli);
    case ZYDIS_MNEMONIC_STI: return plain(sys_sti);
    case ZYDIS_MNEMONIC_HLT: return plain(sys_hlt);
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL: return plain(sys_vmcall);

    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT: {
      const bool in_instruction = m == ZYDIS_MNEMONIC_IN;
      const auto& port = in.operand[in_instruction ? 1 : 0];
      const auto& data = in.operand[in_instruction ? 0 : 1];
      if (port.type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        as_.move_imm(hRsi, port.imm.value.u & 0xff);
      else
        as_.load(hRsi, gpr_offset(kRdx), 2);
      as_.move_imm(hRdx, data.size / 8u);
      if (!in_instruction) {
        call(rt_out);
      } else {
        call(rt_in);
        write_operand(in, data, data.size / 8u);
      }
      // The block ends: a chip that reads the virtual clock sees just the instructions up to this one.
      advance(in);
      return Flow::End;
    }

    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR: {
      const X87Env kind = m == ZYDIS_MNEMONIC_FNSTENV  ? X87Env::Stenv
                          : m == ZYDIS_MNEMONIC_FLDENV ? X87Env::Ldenv
                          : m == ZYDIS_MNEMONIC_FNSAVE ? X87Env::Save
                                                       : X87Env::Rstor;
      const uint32_t format = size == 2 ? 2 : 4;
      const bool store = kind == X87Env::Stenv || kind == X87Env::Save;
      const auto& memory = in.operand[0];
      wait_for_x87(in);
      linear_address(in, memory, (format == 2 ? 14 : 28) + (kind == X87Env::Save || kind == X87Env::Rstor ? 80 : 0), store);
      as_.move_imm(hRdx, static_cast<uint32_t>(kind));
      as_.move_imm(hRcx, format | operand_flags(memory));
      call(rt_x87_environment);
      return advance_and_check(in);
    }
    default: break;
  }
  if (in.decoded.meta.isa_set == ZYDIS_ISA_SET_VTX || in.decoded.meta.isa_set == ZYDIS_ISA_SET_SVM || m == ZYDIS_MNEMONIC_RSM) {
    emit_raise(kUd);
    return Flow::End;
  }
  known = false;
  return Flow::Next;
}

}  // namespace lodge::engine::soft
