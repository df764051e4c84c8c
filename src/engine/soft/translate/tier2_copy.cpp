// Copied instructions in the second tier: the guest's encoding with registers renamed and the memory operand redirected.
#include <bit>

#include "engine/soft/translate/encoding.hpp"
#include "engine/soft/translate/tier2.hpp"

namespace lodge::engine::soft {

namespace {

bool is_control_of_x87(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FWAIT: return true;  // they leave the pointers (SDM vol. 1, 8.1.8)
    default: return false;
  }
}

}  // namespace

void Tier2::load_guest(Host into, int guest) {
  if (host_of(guest) < 0)
    as_.load(into, gpr_offset(guest));
  else
    as_.move(into, static_cast<Host>(host_of(guest)), code64_);
}

void Tier2::store_guest(int guest, Host from) {
  if (host_of(guest) < 0)
    as_.store(gpr_offset(guest), from);
  else
    as_.move(static_cast<Host>(host_of(guest)), from);
}

// map: host register of each guest register.
void Tier2::encode(const Instruction& in, const Address* memory, const std::array<int, 16>& map) {
  const auto& raw = in.decoded.raw;
  const bool vex = in.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
  bool rex_w, reg_high, index_high = false, base_high, rex_present = false;
  uint8_t vvvv = 0;
  if (vex) {
    rex_w = raw.vex.W;
    reg_high = !raw.vex.R;
    base_high = !raw.vex.B;
    vvvv = static_cast<uint8_t>(~raw.vex.vvvv & 15);
  } else {
    rex_present = in.decoded.attributes & ZYDIS_ATTRIB_HAS_REX;
    rex_w = rex_present && raw.rex.W;
    reg_high = rex_present && raw.rex.R;
    base_high = rex_present && raw.rex.B;
  }
  uint8_t reg = raw.modrm.reg, rm = raw.modrm.rm, opcode = in.decoded.opcode;
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const int guest = gpr_index(operand.reg.value);
    if (guest < 0 || is_high_byte(operand.reg.value)) continue;
    const auto host = static_cast<uint8_t>(map[static_cast<size_t>(guest)]);
    switch (operand.encoding) {
      case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        reg = host & 7;
        reg_high = host >= 8;
        break;
      case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        rm = host & 7;
        base_high = host >= 8;
        break;
      case ZYDIS_OPERAND_ENCODING_OPCODE:
        opcode = static_cast<uint8_t>((opcode & ~7) | (host & 7));
        base_high = host >= 8;
        break;
      case ZYDIS_OPERAND_ENCODING_NDSNDD: vvvv = host; break;
      default: break;
    }
  }
  if (memory) {
    base_high = memory->base >= 8;
    index_high = memory->index >= 8;
  }
  HostForm form = host_form(in, opcode, reg, rm);
  if (to_code64(in, code64_, form)) reg_high = false;

  if (in.locked()) as_.byte(0xf0);
  if (vex) {
    as_.byte(0xc4);
    as_.byte(static_cast<uint8_t>((reg_high ? 0 : 0x80) | (index_high ? 0 : 0x40) | (base_high ? 0 : 0x20) | raw.vex.m_mmmm));
    as_.byte(static_cast<uint8_t>((rex_w ? 0x80 : 0) | (~vvvv & 15) << 3 | raw.vex.L << 2 | raw.vex.pp));
  } else {
    if (has_mandatory(in, 0x66) || needs_operand_size_prefix(in)) as_.byte(0x66);
    if (has_mandatory(in, 0xf2)) as_.byte(0xf2);
    if (has_mandatory(in, 0xf3)) as_.byte(0xf3);
    as_.rex(rex_w, reg_high ? 8 : 0, index_high ? 8 : 0, base_high ? 8 : 0, rex_present);
    switch (in.decoded.opcode_map) {
      case ZYDIS_OPCODE_MAP_0F: as_.byte(0x0f); break;
      case ZYDIS_OPCODE_MAP_0F38:
        as_.byte(0x0f);
        as_.byte(0x38);
        break;
      case ZYDIS_OPCODE_MAP_0F3A:
        as_.byte(0x0f);
        as_.byte(0x3a);
        break;
      default: break;
    }
  }
  as_.byte(form.opcode);
  if (form.modrm) {
    if (memory)
      as_.operand(form.reg, *memory);
    else
      as_.modrm(3, form.reg, form.rm);
  }
  if (form.immediate_from < in.length()) as_.bytes(in.bytes + form.immediate_from, in.length() - form.immediate_from);
}

void Tier2::copy(uint32_t i) {
  const Item& item = *items_[i];
  const Instruction& in = item.in;
  constexpr uint32_t kElsewhere = 1u << kR10 | 1u << kR11 | 1u << kR15;
  const uint32_t elsewhere = item.used & kElsewhere;

  Address memory;
  if (item.access.valid) memory = look_up(i, item.access, elsewhere != 0);
  if (item.reads || (item.modifies && (item.live_out & ~item.writes)) || (o_.exact_flags && !flags_)) need_host_flags(!item.access.valid);

  std::array<int, 16> map = kHostOf;
  Host next = kS0;
  for (int r = 0; elsewhere && r < 16; ++r) {
    if (!(elsewhere >> r & 1)) continue;
    map[static_cast<size_t>(r)] = next;
    as_.load(next, gpr_offset(r));
    if (next == kS1) addend_group_ = -1;
    next = kS1;
  }
  note(i, false, flags_, x87_);
  encode(in, item.access.valid ? &memory : nullptr, map);
  for (int r = 0; elsewhere && r < 16; ++r)
    if ((elsewhere & item.written) >> r & 1) as_.store(gpr_offset(r), static_cast<Host>(map[static_cast<size_t>(r)]));
  if (is_x87(in) && !is_control_of_x87(in.mnemonic())) x87_instruction(i, item.access.valid);
  advance_versions(item);
  if (item.modifies) {
    flags_ = kInHost;
    recipe_ = recipe_of(item);
    recipe_.item = i;
  }
}

// The pointers to x87's last instruction are committed where they can be seen; its operand's address now, while it is known.
void Tier2::x87_instruction(uint32_t i, bool memory) {
  x87_ = static_cast<int>(i);
  if (!memory) return;
  const Access& access = items_[i]->access;
  Place place = access.place;
  place.segment = -1;
  const int64_t moved = (place.base < 0 ? 0 : delta_[static_cast<size_t>(place.base)]) +
                        (place.index < 0 ? 0 : delta_[static_cast<size_t>(place.index)] << place.scale);
  linear_into(place, access.displacement - moved);
  as_.store(offsetof(CpuState, x87_last_dp), kS1);
  load_rip(kS0, at_ + items_[i]->offset);
  as_.store(offsetof(CpuState, x87_last_dp_ip), kS0);
}

void Tier2::commit_x87(int i) {
  const Item& item = *items_[static_cast<size_t>(i)];
  load_rip(kS0, at_ + item.offset);
  as_.store(offsetof(CpuState, x87_ip), kS0);
  as_.store_imm16(offsetof(CpuState, x87_last_opcode), workspace_.x87_opcode[static_cast<size_t>(i)]);
}

void Tier2::lea(const Item& item) {
  const Instruction& in = item.in;
  const bool wide = in.decoded.operand_width == 64;
  const int to = gpr_index(in.operand[0].reg.value);
  const Access access = access_of(item, in.operand[1], 0, false);
  Place place = access.place;
  place.segment = -1;  // an address, not an access
  const int64_t displacement = access.displacement - (place.base < 0 ? 0 : delta_[static_cast<size_t>(place.base)]) -
                               (place.index < 0 ? 0 : delta_[static_cast<size_t>(place.index)] << place.scale);
  const auto in_state = [](int guest) { return guest >= 0 && host_of(guest) < 0; };
  const Host target = host_of(to) < 0 ? kS0 : static_cast<Host>(host_of(to));
  if (!place.rip && !in_state(place.base) && !in_state(place.index) && displacement == static_cast<int32_t>(displacement)) {
    const Address address{.base = place.base < 0 ? -1 : host_of(place.base),
                          .index = place.index < 0 ? -1 : host_of(place.index),
                          .scale = place.scale,
                          .displacement = static_cast<int32_t>(displacement)};
    as_.with_memory(0x8d, target, address, wide);
    if (host_of(to) < 0) as_.store(gpr_offset(to), target);
  } else {
    linear_into(place, displacement);
    if (!wide) as_.zero_extend(kS1, 4);
    store_guest(to, kS1);
  }
  advance_versions(item);
}

}  // namespace lodge::engine::soft
