// The second tier's first pass: which instructions a block has, what they read and write, which flags are dead.
#include <algorithm>
#include <bit>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/translate/encoding.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/translate/tier2.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint32_t kMaxBytes = 400;

const ZydisDecodedOperand* memory_operand(const Instruction& in) {
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i)
    if (in.operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY && in.operand[i].mem.type == ZYDIS_MEMOP_TYPE_MEM) return &in.operand[i];
  return nullptr;
}

bool is_gpr(const ZydisDecodedOperand& operand) { return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_index(operand.reg.value) >= 0; }

// A general register as wide as the stack's words.
bool is_word_gpr(const ZydisDecodedOperand& operand, uint32_t bytes) { return is_gpr(operand) && operand.size == 8 * bytes; }

bool is_hint(const Instruction& in) {
  const auto category = in.decoded.meta.category;
  const bool prefetch =
      in.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in.decoded.opcode_map == ZYDIS_OPCODE_MAP_0F && in.decoded.opcode == 0x0d;
  return prefetch || in.mnemonic() == ZYDIS_MNEMONIC_NOP || category == ZYDIS_CATEGORY_WIDENOP || category == ZYDIS_CATEGORY_PREFETCH ||
         category == ZYDIS_CATEGORY_PREFETCHWT1 || category == ZYDIS_CATEGORY_CET;
}

// Shifts and rotates that may turn out to move nothing, and then leave the flags.
bool may_leave_flags(const Instruction& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: break;
    default: return false;
  }
  for (uint32_t i = 1; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
      const uint64_t count = operand.imm.value.u & (in.decoded.operand_width == 64 ? 63 : 31);
      const auto m = in.mnemonic();
      const bool shift = m == ZYDIS_MNEMONIC_SHL || m == ZYDIS_MNEMONIC_SHR || m == ZYDIS_MNEMONIC_SAR;
      return count == 0 || !shift;
    }
  }
  return true;  // by CL, or the rotates by 1, which is no loss
}

// Results that the manuals leave undefined and processors leave as they were.
bool may_keep_undefined(const Instruction& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: return true;
    default: return false;
  }
}

}  // namespace

bool Tier2::encodable(const Item& item) const {
  const Instruction& in = item.in;
  const ZydisDecodedOperand* memory = memory_operand(in);
  bool high_byte = false;
  uint32_t elsewhere = 0;  // registers that need one of the scratch registers
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      if (&operand != memory) return false;
      continue;
    }
    if (!is_gpr(operand)) continue;
    const int r = gpr_index(operand.reg.value);
    high_byte = high_byte || is_high_byte(operand.reg.value);
    switch (operand.encoding) {
      case ZYDIS_OPERAND_ENCODING_MODRM_REG:
      case ZYDIS_OPERAND_ENCODING_MODRM_RM:
      case ZYDIS_OPERAND_ENCODING_OPCODE:
      case ZYDIS_OPERAND_ENCODING_NDSNDD: break;
      default:
        if (host_of(r) != r) return false;  // implied: it can't be renamed
    }
    if (r >= 0 && host_of(r) < 0) elsewhere |= 1u << r;
  }
  const uint32_t scratch = (elsewhere >> kR10 & 1) + (elsewhere >> kR11 & 1) + (elsewhere >> kR15 & 1);
  if (high_byte) {  // these have no encoding with REX
    if (memory || scratch || (in.decoded.attributes & ZYDIS_ATTRIB_HAS_REX)) return false;
    for (uint32_t i = 0; i < in.decoded.operand_count; ++i)
      if (is_gpr(in.operand[i]) && host_of(gpr_index(in.operand[i].reg.value)) >= 8) return false;
  }
  if (scratch > (memory ? 1u : 2u)) return false;
  if (code64_ && in.decoded.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && in.decoded.opcode >= 0xa0 && in.decoded.opcode <= 0xa3) return false;
  // Outside 64-bit code VEX means other things in places (see Tier1::copied_bytes()).
  if (!code64_ && in.decoded.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  const auto m = in.mnemonic();
  const bool bit_string = m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC;
  return !(memory && bit_string && in.operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER);
}

void Tier2::classify(Item& item) const {
  const Instruction& in = item.in;
  const ZydisMnemonic m = in.mnemonic();
  item.kind = Kind::Bridge;
  const ZydisDecodedOperand* memory = memory_operand(in);
  if (in.decoded.address_width != 8 * word_) return;
  // In flat segments: CS may not be readable, FS and GS have bases.
  if (!code64_ && memory && in.mnemonic() != ZYDIS_MNEMONIC_LEA) {
    const SegmentIndex segment = segment_index(memory->mem.segment);
    if (segment == kCs || segment == kFs || segment == kGs) return;
  }
  if (memory && memory->mem.disp.has_displacement && memory->mem.disp.value != static_cast<int32_t>(memory->mem.disp.value)) return;
  const auto& first = in.operand[0];
  const bool wide = in.decoded.operand_width == 8 * word_;
  if (in.decoded.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return;
  const bool odd_prefix = has_prefix(in, 0x66) || in.locked();
  const bool relative = first.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && first.imm.is_relative;
  if (condition_of(m) >= 0) {
    if (relative && !odd_prefix) item.kind = Kind::Condition;
    return;
  }
  switch (m) {
    case ZYDIS_MNEMONIC_JMP:
      if (odd_prefix) return;
      if (relative)
        item.kind = Kind::Jump;
      else if (first.size == 8 * word_)
        item.kind = Kind::JumpIndirect;
      return;
    case ZYDIS_MNEMONIC_CALL:
      if (odd_prefix) return;
      if (relative)
        item.kind = Kind::Call;
      else if (first.size == 8 * word_)
        item.kind = Kind::CallIndirect;
      return;
    case ZYDIS_MNEMONIC_RET:
      if (!odd_prefix && wide) item.kind = Kind::Return;
      return;
    case ZYDIS_MNEMONIC_PUSH:
      if (odd_prefix || !wide) return;
      if (is_word_gpr(first, word_) || first.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) item.kind = Kind::Push;
      if (first.type == ZYDIS_OPERAND_TYPE_MEMORY) item.kind = Kind::PushMemory;
      return;
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
      if (!odd_prefix) item.kind = Kind::PushFlags;
      return;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
      // Whether CPUID has them does not change once there is long mode with SMAP in use, which the state tells.
      if (odd_prefix || (o_.key & key::kUser) || o_.virtual_clock) return;
      item.kind = m == ZYDIS_MNEMONIC_STAC ? Kind::Stac : Kind::Clac;
      return;
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      if (in.locked() || (o_.key & key::kUser) || o_.virtual_clock) return;
      item.kind = m == ZYDIS_MNEMONIC_SWAPGS ? Kind::Swapgs : m == ZYDIS_MNEMONIC_CLI ? Kind::Cli : Kind::Sti;
      return;
    case ZYDIS_MNEMONIC_POP:
      if (!odd_prefix && wide && is_word_gpr(first, word_)) item.kind = Kind::Pop;
      return;
    case ZYDIS_MNEMONIC_LEAVE:
      if (!odd_prefix && wide) item.kind = Kind::Leave;
      return;
    case ZYDIS_MNEMONIC_LEA:
      if (in.decoded.operand_width >= 32 && !in.locked()) item.kind = Kind::Lea;
      return;
    case ZYDIS_MNEMONIC_PAUSE:
      if (!in.decoded.raw.rex.B || !host_is_amd()) item.kind = Kind::Pause;
      return;
    case ZYDIS_MNEMONIC_FNINIT: return;
    default: break;
  }
  switch (Tier1::way_of(in, o_.key, o_.virtual_clock)) {
    case Tier1::Way::Raise: return;
    case Tier1::Way::Own:
      if (is_hint(in)) item.kind = Kind::Nothing;
      return;
    case Tier1::Way::Copy:
      if (encodable(item)) item.kind = Kind::Copy;
      return;
  }
}

void Tier2::flag_use(Item& item) const {
  const Instruction& in = item.in;
  switch (item.kind) {
    case Kind::Bridge:
    case Kind::PushFlags: item.reads = kAll; return;
    case Kind::Copy:
    case Kind::Condition: break;
    default: return;
  }
  const ZydisAccessedFlags* flags = in.decoded.cpu_flags;
  if (!flags) return;
  const uint32_t undefined = (o_.exact_flags && may_keep_undefined(in)) ? 0 : flags->undefined;
  const uint32_t any = (flags->modified | flags->set_0 | flags->set_1 | flags->undefined) & eflags::kArithmetic;
  const uint32_t written = may_leave_flags(in) ? 0 : (flags->modified | flags->set_0 | flags->set_1 | undefined) & eflags::kArithmetic;
  constexpr uint32_t kRest = eflags::kArithmetic & ~eflags::kCf;
  if (flags->tested & eflags::kCf) item.reads |= kCarry;
  if (flags->tested & kRest) item.reads |= kOthers;
  if (written & eflags::kCf) item.writes |= kCarry;
  if ((written & kRest) == kRest) item.writes |= kOthers;
  item.modifies = any != 0;
}

void Tier2::register_changes(Item& item) const {
  const Instruction& in = item.in;
  auto adjust = [&](int r, int64_t by) {
    item.adjusted = r;
    item.adjustment = by;
    item.written = static_cast<uint16_t>(item.written | 1u << r);
  };
  const int64_t word = word_;
  switch (item.kind) {
    case Kind::Bridge: item.written = 0xffff; return;
    case Kind::Push:
    case Kind::PushMemory:
    case Kind::PushFlags:
    case Kind::Call:
    case Kind::CallIndirect: adjust(kRsp, -word); return;
    case Kind::Pop:
      if (gpr_index(in.operand[0].reg.value) == kRsp) {
        item.written = 1u << kRsp;
        return;
      }
      item.written = static_cast<uint16_t>(1u << gpr_index(in.operand[0].reg.value));
      adjust(kRsp, word);
      return;
    case Kind::Return:
      adjust(kRsp, word + (in.operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? in.operand[0].imm.value.u & 0xffff : 0));
      return;
    case Kind::Leave: item.written = 1u << kRsp | 1u << kRbp; return;
    case Kind::Copy:
    case Kind::Lea: break;
    default: return;
  }
  const RegisterUse use = register_use(in);
  item.used = static_cast<uint16_t>(use.used);
  item.written = static_cast<uint16_t>(use.written);
  const auto& to = in.operand[0];
  if (!is_word_gpr(to, word_)) return;
  const int r = gpr_index(to.reg.value);
  const auto& from = in.operand[1];
  const bool immediate = in.decoded.operand_count > 1 && from.type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_ADD:
      if (immediate) adjust(r, from.imm.value.s);
      break;
    case ZYDIS_MNEMONIC_SUB:
      if (immediate) adjust(r, -from.imm.value.s);
      break;
    case ZYDIS_MNEMONIC_INC: adjust(r, 1); break;
    case ZYDIS_MNEMONIC_DEC: adjust(r, -1); break;
    case ZYDIS_MNEMONIC_LEA:
      if (from.mem.base == to.reg.value && from.mem.index == ZYDIS_REGISTER_NONE)
        adjust(r, from.mem.disp.has_displacement ? from.mem.disp.value : 0);
      break;
    default: break;
  }
}

void Tier2::advance_versions(const Item& item) {
  constexpr int64_t kFar = int64_t{1} << 30;
  for (uint32_t left = item.written; left; left &= left - 1) {
    const auto r = static_cast<uint32_t>(std::countr_zero(left));
    const int64_t moved = delta_[r] + item.adjustment;
    if (static_cast<int>(r) == item.adjusted && moved > -kFar && moved < kFar) {
      delta_[r] = moved;
    } else {
      ++version_[r];
      delta_[r] = 0;
    }
  }
}

Tier2::Access Tier2::access_of(const Item& item, const ZydisDecodedOperand& operand, uint32_t size, bool write) const {
  const auto& mem = operand.mem;
  Access access;
  Place& place = access.place;
  access.displacement = mem.disp.has_displacement ? mem.disp.value : 0;
  if (mem.base == ZYDIS_REGISTER_RIP) {
    place.rip = true;
    access.displacement += at_ + item.offset + item.in.length();
  } else if (mem.base != ZYDIS_REGISTER_NONE) {
    place.base = gpr_index(mem.base);
    place.base_version = version_[static_cast<size_t>(place.base)];
    access.displacement += delta_[static_cast<size_t>(place.base)];
  }
  if (mem.index != ZYDIS_REGISTER_NONE && gpr_index(mem.index) >= 0) {
    place.index = gpr_index(mem.index);
    place.index_version = version_[static_cast<size_t>(place.index)];
    place.scale = mem.scale == 8 ? 3 : mem.scale == 4 ? 2 : mem.scale == 2 ? 1 : 0;
    access.displacement += delta_[static_cast<size_t>(place.index)] << place.scale;
  }
  const SegmentIndex segment = segment_index(mem.segment);
  if (segment == kFs || segment == kGs) place.segment = static_cast<int8_t>(segment);
  access.size = size;
  access.write = write;
  access.flags = mem.segment == ZYDIS_REGISTER_SS ? kOperandStack : 0;
  access.valid = true;
  return access;
}

Tier2::Access Tier2::stack_access(int64_t displacement, bool write, int base) const {
  Access access;
  access.place.base = base;
  access.place.base_version = version_[static_cast<size_t>(base)];
  access.displacement = displacement + delta_[static_cast<size_t>(base)];
  access.size = word_;
  access.flags = kOperandStack;
  access.write = write;
  access.valid = true;
  return access;
}

void Tier2::find_accesses() {
  version_ = {};
  delta_ = {};
  for (Item* const pointer : items_) {
    Item& item = *pointer;
    switch (item.kind) {
      case Kind::Copy: {
        const auto use = first_.memory_use(item.in);
        if (!use.operand) break;
        item.access = access_of(item, *use.operand, use.size & kOperandSize, use.write);
        item.access.flags |= use.size & (kOperandAligned | kOperandLocked);
        break;
      }
      case Kind::Push:
      case Kind::PushFlags:
      case Kind::Call: item.access = stack_access(-static_cast<int64_t>(word_), true); break;
      case Kind::PushMemory: item.access = access_of(item, item.in.operand[0], word_, false); break;
      case Kind::Pop:
      case Kind::Return: item.access = stack_access(0, false); break;
      case Kind::Leave: item.access = stack_access(0, false, kRbp); break;
      case Kind::CallIndirect:
      case Kind::JumpIndirect:
        if (item.in.operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY) item.access = access_of(item, item.in.operand[0], word_, false);
        break;
      default: break;
    }
    advance_versions(item);
  }
  version_ = {};
  delta_ = {};
}

bool Tier2::counts_freely(const Instruction& in, uint32_t key) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET: return in.decoded.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
      return in.operand[0].type != ZYDIS_OPERAND_TYPE_REGISTER || ZydisRegisterGetClass(in.operand[0].reg.value) != ZYDIS_REGCLASS_SEGMENT;
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: return true;
    default: break;
  }
  return condition_of(in.mnemonic()) >= 0 || is_hint(in) || Tier1::way_of(in, key, true) == Tier1::Way::Copy;
}

Tier2::Workspace::Workspace() {
  for (uint32_t i = 0; i <= kMaxInstructions; ++i) pool.push_back(std::make_unique<Item>());
}

Tier2::Tier2(Workspace& workspace, Assembler& as, const uint8_t* cache_begin, const Thunks& thunks, const Tier2Options& options)
    : as_(as),
      begin_(cache_begin),
      thunks_(thunks),
      o_(options),
      code64_(options.key & key::kCode64),
      word_(code64_ ? 8 : 4),
      first_(as, options.key, false, options.virtual_clock),
      workspace_(workspace),
      items_(workspace.items),
      stubs_(workspace.stubs) {
  items_.clear();
  stubs_.clear();
  workspace_.live.clear();
  workspace_.offset.clear();
  workspace_.side.clear();
  workspace_.x87_opcode.clear();
}

Tier2::Item& Tier2::fresh_item() {
  Item& item = *workspace_.pool[items_.size()];
  item.offset = 0;
  item.kind = Kind::Bridge;
  item.reads = item.writes = item.live_out = 0;
  item.modifies = false;
  item.access = {};
  item.used = item.written = 0;
  item.adjusted = -1;
  item.adjustment = 0;
  return item;
}

bool Tier2::decode_all() {
  uint32_t offset = 0;
  while (items_.size() < kMaxInstructions && offset < kMaxBytes && at_ + offset < 4096) {
    Item& item = fresh_item();
    if (decode(o_.key, page_ + at_ + offset, 4096 - at_ - offset, item.in) != DecodeStatus::Ok) break;
    item.offset = static_cast<uint16_t>(offset);
    classify(item);
    // Under the virtual clock what may look at the time or bring events stands alone, in both tiers.
    if (item.kind == Kind::Bridge && o_.virtual_clock) break;
    flag_use(item);
    register_changes(item);
    offset += item.in.length();
    items_.push_back(&item);
    switch (item.kind) {
      case Kind::Call:
      case Kind::CallIndirect:
      case Kind::Return:
      case Kind::Jump:
      case Kind::JumpIndirect: length_ = offset; return true;
      default: break;
    }
  }
  length_ = offset;
  return !items_.empty();
}

bool Tier2::decode_across() {
  std::array<uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH> bytes;
  const uint32_t here = 4096 - at_;
  if (here >= bytes.size()) return false;
  std::copy_n(page_ + at_, here, bytes.begin());
  std::copy_n(second_page_, bytes.size() - here, bytes.begin() + here);
  Item* const item = &fresh_item();
  if (decode(o_.key, bytes.data(), bytes.size(), item->in) != DecodeStatus::Ok || item->in.length() <= here) return false;
  classify(*item);
  if (item->kind == Kind::Bridge && o_.virtual_clock) return false;
  flag_use(*item);
  register_changes(*item);
  length_ = item->in.length();
  items_.push_back(item);
  return true;
}

// The parts of the flags that code at an offset of the page may read before it writes them.
uint8_t Tier2::live_at(int64_t page_offset) {
  if (o_.exact_flags || !in_page(page_offset)) return kAll;
  const auto offset = static_cast<uint32_t>(page_offset);
  for (const Live& known : workspace_.live)
    if (known.offset == offset) return known.parts;
  const uint8_t parts = find_live_at(offset);
  workspace_.live.push_back({offset, parts});
  return parts;
}

uint8_t Tier2::find_live_at(uint32_t at) {
  constexpr int kFar = 8;
  uint8_t undecided = kAll, live = 0;
  const uint32_t begin = at;
  Item& item = *workspace_.pool.back();
  for (int i = 0; i < kFar && undecided && at < 4096; ++i) {
    if (decode(o_.key, page_ + at, 4096 - at, item.in) != DecodeStatus::Ok) break;
    item.kind = Kind::Bridge;
    item.reads = item.writes = 0;
    classify(item);
    flag_use(item);
    at += item.in.length();
    live |= item.reads & undecided;
    undecided &= static_cast<uint8_t>(~(item.reads | item.writes));
    bool leaves = false;
    switch (item.kind) {
      case Kind::Call:
      case Kind::CallIndirect:
      case Kind::Return:
      case Kind::Jump:
      case Kind::JumpIndirect:
      case Kind::Condition: leaves = true; break;
      default: break;
    }
    if (leaves) break;
  }
  result_->scan_begin = std::min<uint16_t>(result_->scan_begin, static_cast<uint16_t>(begin));
  result_->scan_end = std::max<uint16_t>(result_->scan_end, static_cast<uint16_t>(at));
  return live | undecided;
}

void Tier2::find_liveness() {
  const Item& last = *items_.back();
  uint8_t live;
  switch (last.kind) {
    case Kind::Jump: live = live_at(target_of(last)); break;
    case Kind::Call: live = live_at(target_of(last)); break;
    case Kind::CallIndirect:
    case Kind::Return:
    case Kind::JumpIndirect: live = kAll; break;
    default: live = live_at(at_ + length_); break;
  }
  for (size_t i = items_.size(); i-- > 0;) {
    Item& item = *items_[i];
    if (item.kind == Kind::Condition) live |= live_at(target_of(item));
    item.live_out = o_.exact_flags ? kAll : live;
    live = item.live_in();
  }
  live_in_ = o_.exact_flags ? kAll : live;
}

}  // namespace lodge::engine::soft
