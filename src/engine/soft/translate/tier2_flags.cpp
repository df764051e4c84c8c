// The arithmetic flags in the second tier: put aside, brought back, or made again.
#include "engine/soft/translate/encoding.hpp"
#include "engine/soft/translate/tier2.hpp"

namespace lodge::engine::soft {

void Tier2::save_flags(Host scratch) {
  as_.move(scratch, hRax);
  flags_to_state(as_);
  as_.move(hRax, scratch);
  if (scratch == kS1) addend_group_ = -1;
  flags_ |= kInState;
}

void Tier2::restore_flags() {
  as_.push(hRax);
  as_.load(hRax, offsetof(CpuState, flags_of), 2);
  as_.add_al_imm(0x7f);
  as_.sahf();
  as_.pop(hRax);
  flags_ |= kInHost;
}

// The host's flags are about to be overwritten by code of the translator's own.
void Tier2::before_clobber(uint8_t live) {
  if (flags_ & kInHost) {
    if (o_.exact_flags) live = kAll;
    if (live && !(flags_ & kInState) && !recipe_valid()) save_flags(kS0);
  }
  flags_ &= static_cast<uint8_t>(~kInHost);
}

void Tier2::need_host_flags(bool scratch_free) {
  if (flags_ & kInHost) return;
  if (flags_ & kInState) {
    restore_flags();
  } else if (recipe_valid()) {
    materialise(recipe_, 0, scratch_free);
    flags_ |= kInHost;
  } else {
    failed_ = true;
  }
}

void Tier2::need_state_flags(Host scratch) {
  if (flags_ & kInState) return;
  need_host_flags(true);
  save_flags(scratch);
}

bool Tier2::recipe_valid() const {
  const auto same = [&](int r, uint32_t version) { return r < 0 || version_[static_cast<size_t>(r)] == version; };
  const Recipe& recipe = recipe_;
  if (recipe.kind == Recipe::Kind::None || !same(recipe.left, recipe.left_version) || !same(recipe.right, recipe.right_version))
    return false;
  if (recipe.right >= 0 && delta_[static_cast<size_t>(recipe.right)] != recipe.right_delta) return false;
  // Sums can be made from a register that has moved by a known distance meanwhile, if they are 64 bits wide.
  const bool may_move = recipe.kind != Recipe::Kind::Test && recipe.kind != Recipe::Kind::Again && recipe.size == 8 && recipe.right < 0;
  return recipe.left < 0 || may_move || delta_[static_cast<size_t>(recipe.left)] == recipe.left_delta;
}

// `adjust` beside what the left register has moved by since.
void Tier2::materialise(const Recipe& recipe, int64_t adjust, bool scratch_free) {
  const auto left = static_cast<Host>(host_of(recipe.left < 0 ? 0 : recipe.left));
  switch (recipe.kind) {
    case Recipe::Kind::None: failed_ = true; return;
    case Recipe::Kind::Again: {
      std::array<int, 16> map{};
      for (int r = 0; r < 16; ++r) map[static_cast<size_t>(r)] = host_of(r);
      encode(items_[recipe.item]->in, nullptr, map);
      return;
    }
    case Recipe::Kind::Test:
      if (recipe.size == 2) as_.byte(0x66);
      as_.rex(recipe.size == 8, left, 0, left, recipe.size == 1 && left >= 4);
      as_.byte(recipe.size == 1 ? 0x84 : 0x85);
      as_.modrm(3, left, left);
      return;
    case Recipe::Kind::Add:
    case Recipe::Kind::Subtract: {
      const bool add = recipe.kind == Recipe::Kind::Add, wide = recipe.size == 8;
      const auto right = recipe.right < 0 ? hRsp : static_cast<Host>(host_of(recipe.right));
      const Host temporary = scratch_free ? kS1 : right == hRbx ? hRcx : hRbx;
      if (scratch_free)
        addend_group_ = -1;
      else
        as_.push(temporary);
      if (recipe.right >= 0) {
        as_.move(temporary, left, wide);
        as_.alu(add ? 0x29 : 0x01, temporary, right, wide);
        as_.alu(add ? 0x01 : 0x29, temporary, right, wide);
      } else {
        const int64_t moved = (recipe.left < 0 ? 0 : delta_[static_cast<size_t>(recipe.left)] - recipe.left_delta) + adjust;
        const int64_t distance = -moved - (add ? recipe.immediate : -static_cast<int64_t>(recipe.immediate));
        if (distance != static_cast<int32_t>(distance)) failed_ = true;
        as_.lea(temporary, {.base = left, .displacement = static_cast<int32_t>(distance)});
        as_.alu_imm32(add ? 0 : 5, temporary, recipe.immediate, wide);
      }
      if (!scratch_free) as_.pop(temporary);
      return;
    }
  }
}

Tier2::Recipe Tier2::recipe_of(const Item& item) const {
  Recipe recipe;
  const Instruction& in = item.in;
  if (item.kind != Kind::Copy || item.access.valid || in.decoded.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return recipe;
  const auto& a = in.operand[0];
  const auto& b = in.operand[1];
  const auto reg = [](const ZydisDecodedOperand& operand) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER || is_high_byte(operand.reg.value)) return -1;
    const int r = gpr_index(operand.reg.value);
    return r >= 0 && host_of(r) >= 0 ? r : -1;
  };
  const bool immediate = b.type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  const int left = reg(a), right = immediate ? -1 : reg(b);
  if (left < 0 || (right < 0 && !immediate)) return recipe;
  recipe.left = left;
  recipe.size = static_cast<uint8_t>(a.size / 8);
  recipe.item = 0;
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR: recipe.kind = Recipe::Kind::Test; break;
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_CMP:
      recipe.kind = Recipe::Kind::Again;
      recipe.right = right;
      break;
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
      if (recipe.size < 4 || left == right) break;
      if (immediate && b.imm.value.s != static_cast<int32_t>(b.imm.value.s)) break;
      recipe.kind = in.mnemonic() == ZYDIS_MNEMONIC_ADD ? Recipe::Kind::Add : Recipe::Kind::Subtract;
      recipe.right = right;
      if (immediate) recipe.immediate = static_cast<int32_t>(b.imm.value.s);
      break;
    default: break;
  }
  // Called when the registers' versions are those behind the instruction.
  recipe.left_version = version_[static_cast<size_t>(left)];
  recipe.left_delta = delta_[static_cast<size_t>(left)];
  if (recipe.right >= 0) {
    recipe.right_version = version_[static_cast<size_t>(recipe.right)];
    recipe.right_delta = delta_[static_cast<size_t>(recipe.right)];
  }
  return recipe;
}

Tier2::Stub Tier2::stub_with_flags(Stub::Kind kind, Assembler::Label from, uint32_t item) const {
  Stub stub;
  stub.kind = kind;
  stub.from = from.patch;
  stub.item = item;
  stub.flags = flags_;
  if (!flags_ && recipe_valid()) {
    stub.recipe = recipe_;
    stub.recipe_adjust = recipe_.left < 0 ? 0 : delta_[static_cast<size_t>(recipe_.left)] - recipe_.left_delta;
  }
  return stub;
}

void Tier2::flags_of_stub(const Stub& stub) {
  flags_ = stub.flags;
  if (stub.recipe.kind == Recipe::Kind::None) return;
  // The registers are as they were at the check.
  version_ = {};
  delta_ = {};
  Recipe recipe = stub.recipe;
  recipe.left_delta = 0;
  materialise(recipe, stub.recipe_adjust, true);
  flags_ = kInHost;
}

}  // namespace lodge::engine::soft
