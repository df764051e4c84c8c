#include "forms.hpp"

#include <algorithm>
#include <cstring>

namespace lodge::oracle {
namespace {

struct Encoding {
  std::array<uint8_t, 16> bytes{};
  uint8_t length = 0;
  void put(uint8_t byte) { bytes[length++] = byte; }
};

// A ModRM byte for every register-register form and for one addressing form of each reg field. rm 4 (with a SIB byte in
// 32- and 64-bit addressing) is what VSIB needs.
constexpr bool wanted_modrm(unsigned modrm) { return modrm >= 0xc0 || (modrm & 0xc7) == 0x03 || (modrm & 0xc7) == 0x04; }

constexpr size_t kExcluded = ~size_t{0};

}  // namespace

Forms::Forms(Mode mode) { enumerate(mode); }

void Forms::enumerate(Mode mode) {
  const bool is_64 = mode == Mode::Code64;
  const auto with_modrm = [&](const Encoding& start) {
    for (unsigned modrm = 0; modrm < 256; ++modrm) {
      if (!wanted_modrm(modrm)) continue;
      Encoding e = start;
      e.put(uint8_t(modrm));
      e.put(0x0b);  // a SIB byte or the start of an immediate
      add(mode, e.bytes);
    }
  };
  // Legacy: map × mandatory prefix × operand size × REX.W × opcode.
  static constexpr std::array<std::array<uint8_t, 3>, 4> kMaps = {{{0, 0, 0}, {1, 0x0f, 0}, {2, 0x0f, 0x38}, {2, 0x0f, 0x3a}}};
  static constexpr uint8_t kPrefixes[] = {0, 0x66, 0xf3, 0xf2};
  for (const auto& map : kMaps) {
    for (unsigned variant = 0; variant < 32; ++variant) {
      const uint8_t prefix = kPrefixes[variant & 3];
      const bool both = variant & 4;           // 66 beside F2 or F3
      const bool w = variant & 8;              // REX.W
      const bool address_size = variant & 16;  // 67: JCXZ, implicit memory operands
      if ((both && (variant & 2) == 0) || (w && !is_64)) continue;
      for (unsigned opcode = 0; opcode < 256; ++opcode) {
        Encoding e;
        if (both) e.put(0x66);
        if (address_size) e.put(0x67);
        if (prefix) e.put(prefix);
        if (w) e.put(0x48);
        for (unsigned i = 0; i < map[0]; ++i) e.put(map[1 + i]);
        e.put(uint8_t(opcode));
        with_modrm(e);
      }
    }
  }
  // VEX (three bytes): map × W × L × pp × opcode, with VEX.vvvv 1111 and another.
  for (unsigned map = 1; map <= 3; ++map) {
    for (unsigned variant = 0; variant < 32; ++variant) {
      for (unsigned opcode = 0; opcode < 256; ++opcode) {
        Encoding e;
        e.put(0xc4);
        e.put(uint8_t(0xe0 | map));
        e.put(uint8_t((variant & 8 ? 0x80 : 0) | (variant & 16 ? 0x78 : 0x68) | (variant & 7)));
        e.put(uint8_t(opcode));
        with_modrm(e);
      }
    }
  }
}

void Forms::add(Mode mode, std::span<const uint8_t> bytes) {
  Instruction i;
  if (!decode(mode, bytes, i)) return;
  const uint64_t key = form_key(mode, i);
  if (index_.contains(key)) return;
  if (const char* why = oracle::excluded(mode, i)) {
    index_.emplace(key, kExcluded);
    ++excluded_[why];
    return;
  }
  index_.emplace(key, forms_.size());
  Form form = {};
  std::copy(bytes.begin(), bytes.end(), form.bytes.begin());
  form.length = i.info.length;
  form.modrm_at = (i.info.attributes & ZYDIS_ATTRIB_HAS_MODRM) ? i.info.raw.modrm.offset : 0;
  form.text = disassemble(i, kCode);
  forms_.push_back(std::move(form));
}

void Forms::count(uint64_t key, bool completed) {
  const auto found = index_.find(key);
  if (found == index_.end() || found->second == kExcluded) return;
  ++forms_[found->second].runs;
  forms_[found->second].completions += completed;
}

}  // namespace lodge::oracle
