// What goes into a run of one instruction and what comes out of it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "layout.hpp"

namespace lodge::oracle {

enum Gpr : uint8_t { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi };
inline constexpr const char* kGprNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                              "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

// x87, SSE and AVX in XSAVE's standard form (SDM vol. 1, 13.4): 512 legacy bytes, header, upper halves of YMM.
struct alignas(64) Vectors {
  uint16_t fcw, fsw;
  uint8_t ftw, reserved0;
  uint16_t fop;
  uint64_t fip, fdp;
  uint32_t mxcsr, mxcsr_mask;
  uint8_t st[8][16];  // 10 bytes each
  uint8_t xmm[16][16];
  uint8_t reserved1[96];
  uint64_t xstate_bv, xcomp_bv, header[6];
  uint8_t ymm_high[16][16];
};
static_assert(sizeof(Vectors) == 832);

struct State {
  Vectors vectors;
  std::array<uint64_t, 16> gpr;
  uint64_t rip;  // an offset in CS
  uint64_t rflags;
  uint16_t cs, ss, ds, es, fs, gs;
  uint64_t fs_base, gs_base;
};

// Bytes of the initial memory that differ from the pattern common to all cases.
struct Patch {
  uint64_t linear;
  uint8_t length;
  std::array<uint8_t, 64> data;
};

struct Case {
  uint64_t seed = 0;
  Mode mode = Mode::Code64;
  uint8_t length = 0;  // of the instruction
  std::array<uint8_t, 16> bytes{};
  bool trap_flag = false;  // stop by EFLAGS.TF, not by the INT3 behind the instruction
  bool undecodable = false;
  bool never_offered = false;  // the host may know the instruction; the engine must not
  State initial{};
  std::vector<Patch> patches;  // includes the instruction itself
};

inline constexpr uint8_t kHang = 0xff;  // as a vector: the run did not end by itself

struct Outcome {
  State state{};
  uint8_t vector = 0;  // of the exception that ended the run
  uint32_t error = 0;  // 0 for vectors without an error code
  uint64_t cr2 = 0;    // 0 but for a page fault
  Image memory{};
};

constexpr bool has_error_code(uint8_t vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

// The memory that every case starts from, before its patches.
const Image& pattern();

// Components that XSAVE reports as initial get their initial values, so that two images compare byte by byte.
void normalise(Vectors& vectors);

}  // namespace lodge::oracle
