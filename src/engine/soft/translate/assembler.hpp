// Emits x86-64 machine code (SDM vol. 2, ch. 2) into a buffer: what the translators need around the guest's own instructions.
//
// State operands are GS:[disp32] (the SIB form without base and index). Registers are numbered as in ModRM with REX.
#pragma once

#include <cstdint>
#include <cstring>

namespace lodge::engine::soft {

enum Host : uint8_t { hRax, hRcx, hRdx, hRbx, hRsp, hRbp, hRsi, hRdi, hR8, hR9, hR10, hR11, hR12, hR13, hR14, hR15 };

// Condition codes as in Jcc.
enum Condition : uint8_t { kOverflow = 0, kBelow = 2, kNotBelow = 3, kZero = 4, kNotZero = 5, kSign = 8, kNotSign = 9 };

// A memory operand of the host: [base + index * 2^scale + displacement], relative to GS or not. -1: no register.
struct Address {
  int base = -1, index = -1;
  uint8_t scale = 0;
  int32_t displacement = 0;
  bool gs = false;
};

class Assembler {
 public:
  Assembler(uint8_t* begin, uint8_t* end) : begin_(begin), at_(begin), end_(end) {}

  [[nodiscard]] uint8_t* here() const { return at_; }
  [[nodiscard]] uint32_t size() const { return static_cast<uint32_t>(at_ - begin_); }
  [[nodiscard]] bool full() const { return overflow_; }

  void byte(uint8_t b) {
    if (at_ < end_)
      *at_++ = b;
    else
      overflow_ = true;
  }
  void bytes(const void* from, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) byte(static_cast<const uint8_t*>(from)[i]);
  }
  void dword(uint32_t v) { bytes(&v, 4); }
  void qword(uint64_t v) { bytes(&v, 8); }

  // --- state: size in bytes 1, 2, 4, 8
  void load(Host r, uint32_t offset, uint32_t size = 8) {  // 1 and 2 zero-extend
    byte(0x65);
    rex(size == 8, r, 0, 0);
    if (size == 1)
      byte(0x0f), byte(0xb6);
    else if (size == 2)
      byte(0x0f), byte(0xb7);
    else
      byte(0x8b);
    absolute(r, offset);
  }
  void store(uint32_t offset, Host r, uint32_t size = 8) {
    byte(0x65);
    if (size == 2) byte(0x66);
    rex(size == 8, r, 0, 0, size == 1 && r >= 4);
    byte(size == 1 ? 0x88 : 0x89);
    absolute(r, offset);
  }
  void store_imm32(uint32_t offset, uint32_t value, bool sign_extend_to_8 = false) {
    byte(0x65);
    if (sign_extend_to_8) byte(0x48);
    byte(0xc7);
    absolute(0, offset);
    dword(value);
  }
  void store_imm16(uint32_t offset, uint16_t value) {
    byte(0x66);
    byte(0x65);
    byte(0xc7);
    absolute(0, offset);
    bytes(&value, 2);
  }
  void add_state_imm(uint32_t offset, int32_t value, bool wide) {
    byte(0x65);
    if (wide) byte(0x48);
    if (value >= -128 && value <= 127) {
      byte(0x83);
      absolute(0, offset);
      byte(static_cast<uint8_t>(value));
    } else {
      byte(0x81);
      absolute(0, offset);
      dword(static_cast<uint32_t>(value));
    }
  }
  // and (4), or (1) dword gs:[offset], value
  void alu_state_imm32(uint8_t extension, uint32_t offset, uint32_t value) {
    byte(0x65);
    byte(0x81);
    absolute(extension, offset);
    dword(value);
  }
  // vmovdqu between gs:[offset] and a 256-bit register
  void vector_state(bool store, uint8_t ymm, uint32_t offset) {
    byte(0x65);
    byte(0xc4);
    byte(static_cast<uint8_t>((ymm & 8 ? 0 : 0x80) | 0x61));
    byte(0x7e);
    byte(store ? 0x7f : 0x6f);
    absolute(ymm, offset);
  }
  void compare_state_imm8(uint32_t offset, int8_t value) {
    byte(0x65);
    byte(0x83);
    absolute(7, offset);
    byte(static_cast<uint8_t>(value));
  }
  void test_state_imm32(uint32_t offset, uint32_t value) {
    byte(0x65);
    byte(0xf7);
    absolute(0, offset);
    dword(value);
  }
  void store_imm8(uint32_t offset, uint8_t value) {
    byte(0x65);
    byte(0xc6);
    absolute(0, offset);
    byte(value);
  }
  void add_from_state(Host r, uint32_t offset) {
    byte(0x65);
    rex(true, r, 0, 0);
    byte(0x03);
    absolute(r, offset);
  }

  // --- registers
  void move(Host to, Host from, bool wide = true) {
    rex(wide, from, 0, to);
    byte(0x89);
    modrm(3, from, to);
  }
  void move_imm(Host r, uint64_t value) {
    if (value <= 0xffffffff) {
      rex(false, 0, 0, r);
      byte(0xb8 | (r & 7));
      dword(static_cast<uint32_t>(value));
    } else if (static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(value))) == value) {
      rex(true, 0, 0, r);
      byte(0xc7);
      modrm(3, 0, r);
      dword(static_cast<uint32_t>(value));
    } else {
      rex(true, 0, 0, r);
      byte(0xb8 | (r & 7));
      qword(value);
    }
  }
  // lea to, [base + disp]; flags stay
  void lea(Host to, Host base, int32_t displacement, bool wide = true) {
    rex(wide, to, 0, base);
    byte(0x8d);
    modrm(2, to, base);
    if ((base & 7) == 4) byte(0x24);
    dword(static_cast<uint32_t>(displacement));
  }
  // lea to, [base + index * 2^scale]
  void lea_indexed(Host to, Host base, Host index, uint8_t scale) {
    rex(true, to, index, base);
    byte(0x8d);
    modrm(2, to, 4);
    byte(static_cast<uint8_t>(scale << 6 | (index & 7) << 3 | (base & 7)));
    dword(0);
  }
  void add(Host to, Host from) { alu(0x01, to, from); }
  void zero_extend(Host r, uint32_t size) {  // from 2 or 4 bytes
    if (size == 2) {
      rex(false, r, 0, r);
      byte(0x0f);
      byte(0xb7);
      modrm(3, r, r);
    } else if (size == 4) {
      move(r, r, false);
    }
  }
  void alu(uint8_t opcode, Host to, Host from, bool wide = true) {
    rex(wide, from, 0, to);
    byte(opcode);
    modrm(3, from, to);
  }
  void alu_imm8(uint8_t extension, Host r, int8_t value, bool wide = true) {
    rex(wide, 0, 0, r);
    byte(0x83);
    modrm(3, extension, r);
    byte(static_cast<uint8_t>(value));
  }
  void shift_imm(uint8_t extension, Host r, uint8_t count, bool wide = true) {
    rex(wide, 0, 0, r);
    byte(0xc1);
    modrm(3, extension, r);
    byte(count);
  }
  // --- control
  void call(const void* function) {
    move_imm(hRax, reinterpret_cast<uint64_t>(function));
    byte(0xff);
    byte(0xd0);
  }
  void ret() { byte(0xc3); }
  // A forward jump, to be bound later.
  struct Label {
    uint8_t* patch = nullptr;
  };
  Label jump_if(uint8_t condition) {
    byte(0x0f);
    byte(0x80 | condition);
    return forward();
  }
  Label jump() {
    byte(0xe9);
    return forward();
  }
  void bind(Label label) {
    if (overflow_) return;
    const uint32_t distance = static_cast<uint32_t>(at_ - (label.patch + 4));
    std::memcpy(label.patch, &distance, 4);
  }
  void sahf() { byte(0x9e); }
  void lahf() { byte(0x9f); }
  void set_overflow_al() {
    byte(0x0f);
    byte(0x90);
    byte(0xc0);
  }
  void add_al_imm(uint8_t value) {
    byte(0x04);
    byte(value);
  }

  // --- general memory operands
  void rex_for(bool w, uint8_t reg, const Address& a, bool force = false) {
    rex(w, reg, static_cast<uint8_t>(a.index < 0 ? 0 : a.index), static_cast<uint8_t>(a.base < 0 ? 0 : a.base), force);
  }
  // ModRM, SIB and displacement; prefixes, REX and opcode have been written.
  void operand(uint8_t reg, const Address& a) {
    if (a.base < 0) {
      modrm(0, reg, 4);
      byte(static_cast<uint8_t>(a.scale << 6 | (a.index < 0 ? 4 : a.index & 7) << 3 | 5));
      dword(static_cast<uint32_t>(a.displacement));
      return;
    }
    const bool none = a.displacement == 0 && (a.base & 7) != 5;
    const bool small = a.displacement >= -128 && a.displacement <= 127;
    const uint8_t mod = none ? 0 : small ? 1 : 2;
    if (a.index < 0 && (a.base & 7) != 4) {
      modrm(mod, reg, static_cast<uint8_t>(a.base));
    } else {
      modrm(mod, reg, 4);
      byte(static_cast<uint8_t>(a.scale << 6 | (a.index < 0 ? 4 : a.index & 7) << 3 | (a.base & 7)));
    }
    if (mod == 1) byte(static_cast<uint8_t>(a.displacement));
    if (mod == 2) dword(static_cast<uint32_t>(a.displacement));
  }
  // One-byte opcode with a register and a memory operand.
  void with_memory(uint8_t opcode, uint8_t reg, const Address& a, bool wide = true) {
    if (a.gs) byte(0x65);
    rex_for(wide, reg, a);
    byte(opcode);
    operand(reg, a);
  }
  void lea(Host to, const Address& a, bool wide = true) { with_memory(0x8d, to, a, wide); }
  void load(Host to, const Address& a, bool wide = true) { with_memory(0x8b, to, a, wide); }
  void load_word(Host to, const Address& a) {
    rex_for(false, to, a);
    byte(0x0f), byte(0xb7);  // movzx
    operand(to, a);
  }
  void store(const Address& a, Host from, bool wide = true) { with_memory(0x89, from, a, wide); }
  // add (0), or (1), and (4), sub (5), xor (6), cmp (7) r, imm32
  void alu_imm32(uint8_t extension, Host r, int32_t value, bool wide = true) {
    rex(wide, 0, 0, r);
    byte(0x81);
    modrm(3, extension, r);
    dword(static_cast<uint32_t>(value));
  }
  void push(Host r) {
    rex(false, 0, 0, r);
    byte(static_cast<uint8_t>(0x50 | (r & 7)));
  }
  void pop(Host r) {
    rex(false, 0, 0, r);
    byte(static_cast<uint8_t>(0x58 | (r & 7)));
  }
  void nop(uint32_t count) {  // SDM vol. 2B, NOP: the recommended sequences
    static constexpr uint8_t kNop[9][9] = {{0x90},
                                           {0x66, 0x90},
                                           {0x0f, 0x1f, 0x00},
                                           {0x0f, 0x1f, 0x40, 0x00},
                                           {0x0f, 0x1f, 0x44, 0x00, 0x00},
                                           {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
                                           {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
                                           {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
                                           {0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00}};
    while (count) {
      const uint32_t n = count < 9 ? count : 9;
      bytes(kNop[n - 1], n);
      count -= n;
    }
  }
  void align(uint32_t boundary, uint32_t phase = 0) {
    while (((reinterpret_cast<uint64_t>(at_) + phase) & (boundary - 1)) != 0 && !overflow_) {
      const uint32_t missing = boundary - ((reinterpret_cast<uint64_t>(at_) + phase) & (boundary - 1));
      nop(missing);
    }
  }
  // A jump or call to code that has been emitted, in the same mapping of the cache.
  void jump_to(const uint8_t* target) {
    byte(0xe9);
    relative(target);
  }
  void call_to(const uint8_t* target) {
    byte(0xe8);
    relative(target);
  }
  void jump_if_to(uint8_t condition, const uint8_t* target) {
    byte(0x0f);
    byte(static_cast<uint8_t>(0x80 | condition));
    relative(target);
  }
  void relative(const uint8_t* target) { dword(static_cast<uint32_t>(target - (at_ + 4))); }

  void rex(bool w, uint8_t reg, uint8_t index, uint8_t base, bool force = false) {
    const uint8_t value = static_cast<uint8_t>(0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1));
    if (value != 0x40 || force) byte(value);
  }
  void modrm(uint8_t mod, uint8_t reg, uint8_t rm) { byte(static_cast<uint8_t>(mod << 6 | (reg & 7) << 3 | (rm & 7))); }

 private:
  void absolute(uint8_t reg, uint32_t offset) {
    modrm(0, reg, 4);
    byte(0x25);
    dword(offset);
  }
  Label forward() {
    Label label{at_};
    dword(0);
    return label;
  }

  uint8_t* begin_;
  uint8_t* at_;
  uint8_t* end_;
  bool overflow_ = false;
};

}  // namespace lodge::engine::soft
