// FXSAVE, XSAVE and x87 environments: the host's state is saved or loaded through an area of our own, whose x87 pointers are
// exchanged for the guest's, since the host's would show where translated code lies (SDM vol. 1, ch. 8, 10.5 and 13). Selectors
// read as zero, as on all processors that deprecate them (CPUID leaf 7, EBX bit 13).
#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/mmu.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/vcpu/offsets.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint32_t kLegacyX87 = 24;  // FCW to FDP
constexpr uint32_t kMxcsr = 24, kMxcsrMask = 28, kSt = 32, kXmm = 160, kHeader = 512, kAvx = 576, kEnd = 832;
constexpr uint64_t kX87 = 1, kSse = 2, kAvxBit = 4, kCompacted = uint64_t{1} << 63;

template <typename T>
T get(const uint8_t* at) {
  T value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}
template <typename T>
void put(uint8_t* at, T value) {
  __builtin_memcpy(at, &value, sizeof value);
}

void zero(uint8_t* at, uint32_t size) {
  for (uint32_t i = 0; i < size; ++i) at[i] = 0;
}
void copy(uint8_t* to, const uint8_t* from, uint32_t size) {
  for (uint32_t i = 0; i < size; ++i) to[i] = from[i];
}

// The running guest's state in the standard format.
uint8_t* host_area(CpuState& c) {
  uint8_t* const area = c.bounce;
  zero(area + kHeader, 64);
  soft_xsave(area);
  x87_settle(c, get<uint16_t>(area + 2));
  return area;
}

// AMD's processors save the pointers only of an exception that waits (APM vol. 2, 11.5.2), Intel's always.
bool pointers_are_saved(CpuState& c, const uint8_t* area) { return !vendor_is_amd(c) || (get<uint16_t>(area + 2) & 0x80); }

void put_pointers(CpuState& c, uint8_t* area, bool wide) {
  if (!pointers_are_saved(c, area)) {
    put<uint16_t>(area + 6, 0);
    put<uint64_t>(area + 8, 0);
    put<uint64_t>(area + 16, 0);
    return;
  }
  put<uint16_t>(area + 6, c.x87_opcode);
  if (wide) {
    put<uint64_t>(area + 8, c.x87_ip);
    put<uint64_t>(area + 16, c.x87_dp);
  } else {
    put<uint32_t>(area + 8, static_cast<uint32_t>(c.x87_ip));
    put<uint32_t>(area + 12, 0);
    put<uint32_t>(area + 16, static_cast<uint32_t>(c.x87_dp));
    put<uint32_t>(area + 20, 0);
  }
}

// The processor keeps as many bits of the pointers as linear addresses can have, with 5-level paging; Intel's all of the operand's.
uint64_t sign_extend57(uint64_t value) { return static_cast<uint64_t>(static_cast<int64_t>(value << 7) >> 7); }

void take_pointers(CpuState& c, const uint8_t* area, bool wide) {
  c.x87_opcode = get<uint16_t>(area + 6) & 0x7ff;
  if (wide) {
    c.x87_ip = sign_extend57(get<uint64_t>(area + 8));
    c.x87_dp = c.intel_rules ? get<uint64_t>(area + 16) : sign_extend57(get<uint64_t>(area + 16));
  } else {
    c.x87_ip = get<uint32_t>(area + 8);
    c.x87_dp = get<uint32_t>(area + 16);
  }
  x87_loaded(c);
}

uint32_t mxcsr_mask(const uint8_t* area) {
  const uint32_t mask = get<uint32_t>(area + kMxcsrMask);
  return mask ? mask : 0xffbf;
}

void check_aligned(CpuState& c, uint64_t linear, uint32_t alignment) {
  if (linear & (alignment - 1)) raise(c, kGp, 0);
}

uint32_t xmm_bytes(const CpuState& c) { return code64(c) ? 256 : 128; }

// FXSAVE and FXRSTOR: #AC may take #GP's place (SDM vol. 2A), and does on the processors at hand.
void check_fx_aligned(CpuState& c, uint64_t linear) {
  if ((linear & 15) && (c.key & key::kAlignmentCheck)) raise(c, kAc, 0);
  check_aligned(c, linear, 16);
}

void fxsave(CpuState& c, uint64_t linear, bool wide) {
  check_fx_aligned(c, linear);
  mmu_probe_write(c, linear + 511, 1, false);  // the processors at hand look at the end first
  mmu_probe_write(c, linear, 512, false);
  uint8_t* const area = host_area(c);
  put_pointers(c, area, wide);
  // Bytes beyond the registers of the mode are the software's.
  mmu_write(c, linear, area, kXmm + xmm_bytes(c));
}

void fxrstor(CpuState& c, uint64_t linear, bool wide) {
  check_fx_aligned(c, linear);
  uint8_t image[512];
  mmu_read(c, linear + 511, image, 1);  // the processors at hand look at the end first
  mmu_read(c, linear, image, 512);
  uint8_t* const area = host_area(c);
  if (get<uint32_t>(image + kMxcsr) & ~mxcsr_mask(area)) raise(c, kGp, 0);
  copy(area, image, kMxcsr);
  put<uint32_t>(area + kMxcsr, get<uint32_t>(image + kMxcsr));
  copy(area + kSt, image + kSt, 128);
  copy(area + kXmm, image + kXmm, xmm_bytes(c));
  put<uint64_t>(area + kHeader, get<uint64_t>(area + kHeader) | kX87 | kSse);
  take_pointers(c, image, wide);
  soft_xrstor(area);
}

void xsave(CpuState& c, uint64_t linear, XsaveKind kind, bool wide) {
  check_aligned(c, linear, 64);
  const uint64_t requested = c.xcr0 & ((c.gpr[kRdx] << 32) | (c.gpr[kRax] & 0xffffffff));
  const bool compacted = kind == XsaveKind::Xsavec || kind == XsaveKind::Xsaves;
  const uint32_t end = requested & kAvxBit ? kEnd : kAvx;
  // Intel's processors look at the header alone when nothing is asked for.
  const uint32_t begin = c.intel_rules && !requested ? kHeader : 0;
  mmu_probe_write(c, linear + begin, end - begin, false);
  const uint64_t old = compacted ? 0 : rt_load(&c, linear + kHeader, 8);
  uint8_t* const area = host_area(c);
  uint64_t in_use = get<uint64_t>(area + kHeader);
  // Pointers that are not in their initial state count where they are saved.
  if ((c.x87_ip | c.x87_dp | c.x87_opcode) && pointers_are_saved(c, area)) in_use |= kX87;
  put_pointers(c, area, wide);
  const bool skip_initial = kind != XsaveKind::Xsave;
  const uint64_t written = requested & (skip_initial ? in_use : ~uint64_t{0});
  if (written & kX87) {
    mmu_write(c, linear, area, kLegacyX87);
    mmu_write(c, linear + kSt, area + kSt, 128);
  }
  // MXCSR belongs to SSE and AVX both (SDM vol. 1, 13.7 and 13.10).
  if (compacted ? (written & kSse) != 0 : (requested & (kSse | kAvxBit)) != 0) mmu_write(c, linear + kMxcsr, area + kMxcsr, 8);
  if (written & kSse) mmu_write(c, linear + kXmm, area + kXmm, xmm_bytes(c));
  if (written & kAvxBit) mmu_write(c, linear + kAvx, area + kAvx, xmm_bytes(c));
  rt_store(&c, linear + kHeader, 8, (old & ~requested) | (in_use & requested));
  if (compacted) rt_store(&c, linear + kHeader + 8, 8, requested | kCompacted);
}

void xrstor(CpuState& c, uint64_t linear, bool supervisor, bool wide, uint32_t segment, uint64_t offset) {
  check_aligned(c, linear, 64);
  const uint64_t requested = c.xcr0 & ((c.gpr[kRdx] << 32) | (c.gpr[kRax] & 0xffffffff));
  uint8_t image[kEnd];
  mmu_read(c, linear, image, kLegacyX87);  // its faults come before the header's
  mmu_read(c, linear + kHeader, image + kHeader, 64);
  const uint64_t present = get<uint64_t>(image + kHeader), layout = get<uint64_t>(image + kHeader + 8);
  const bool compacted = layout & kCompacted;
  if (supervisor && !compacted) raise(c, kGp, 0);
  if (!compacted) {
    // Bytes 23:8 of the header must be zero; the rest of it is ignored.
    if ((present & ~c.xcr0) || layout || get<uint64_t>(image + kHeader + 16)) raise(c, kGp, 0);
  } else {
    if ((layout & ~kCompacted & ~c.xcr0) || (present & ~layout)) raise(c, kGp, 0);
    for (uint32_t i = 16; i < 64; ++i)
      if (image[kHeader + i]) raise(c, kGp, 0);
  }
  const uint64_t loaded = requested & present;
  uint8_t* const area = host_area(c);
  const uint32_t mask = mxcsr_mask(area);
  uint64_t in_use = get<uint64_t>(area + kHeader);
  if (loaded & kX87) {
    mmu_read(c, linear, image, kLegacyX87);
    mmu_read(c, linear + kSt, image + kSt, 128);
  }
  const bool load_mxcsr = compacted ? (loaded & kSse) != 0 : (requested & (kSse | kAvxBit)) != 0;
  if (load_mxcsr) {
    mmu_read(c, linear + kMxcsr, image + kMxcsr, 4);
    if (get<uint32_t>(image + kMxcsr) & ~mask) raise(c, kGp, 0);
  }
  if (loaded & kSse) mmu_read(c, linear + kXmm, image + kXmm, xmm_bytes(c));
  // The processors at hand look at the limit for all that the area has room for, also where nothing of it is in use; of the compacted
  // format AMD's look at what is in use alone.
  const uint64_t checked = !compacted ? requested : c.intel_rules ? requested & layout : loaded;
  if ((checked & kAvxBit) && !code64(c)) (void)segment_linear(c, segment, offset + kAvx, kEnd - kAvx, false);
  if (loaded & kAvxBit) mmu_read(c, linear + kAvx, image + kAvx, xmm_bytes(c));
  // All reads are done: nothing below raises.
  if (requested & kX87) {
    if (loaded & kX87) {
      copy(area, image, kLegacyX87);
      copy(area + kSt, image + kSt, 128);
      take_pointers(c, image, wide);
      in_use |= kX87;
    } else {
      c.x87_ip = c.x87_dp = 0;
      x87_loaded(c);
      in_use &= ~kX87;
    }
  }
  if (load_mxcsr)
    put<uint32_t>(area + kMxcsr, get<uint32_t>(image + kMxcsr));
  else if (compacted && (requested & kSse))
    put<uint32_t>(area + kMxcsr, 0x1f80);
  // In legacy modes registers 8 to 15 stay.
  auto component = [&](uint64_t bit, uint32_t at) {
    if (!(requested & bit)) return;
    if (!(in_use & bit)) zero(area + at, 256);
    if (loaded & bit)
      copy(area + at, image + at, xmm_bytes(c));
    else
      zero(area + at, xmm_bytes(c));
    in_use |= bit;
  };
  component(kSse, kXmm);
  component(kAvxBit, kAvx);
  // XRSTOR takes MXCSR from the area whenever SSE is asked for, in use or not.
  put<uint64_t>(area + kHeader, in_use);
  soft_xrstor(area);
}

}  // namespace

extern "C" {

void rt_xsave(CpuState* c, uint64_t linear, uint32_t kind, uint32_t wide, uint32_t segment, uint64_t offset) {
  const bool extended = static_cast<XsaveKind>(kind) >= XsaveKind::Xsave;
  if (extended && !(c->cr4 & cr4::kOsxsave)) raise(*c, kUd);
  const bool with_avx = extended && static_cast<XsaveKind>(kind) < XsaveKind::Xrstor && (c->xcr0 & c->gpr[kRax] & kAvxBit);
  const uint32_t end = !extended ? 512 : with_avx ? kEnd : kAvx;
  const bool privileged = static_cast<XsaveKind>(kind) == XsaveKind::Xsaves || static_cast<XsaveKind>(kind) == XsaveKind::Xrstors;
  if (privileged && c->cpl) raise(*c, kGp, 0);
  if (code64(*c) && (!canonical(linear) || !canonical(linear + end - 1))) raise(*c, segment == kSs ? kSs_ : kGp, 0);
  if (with_avx && !code64(*c)) (void)segment_linear(*c, segment, offset + kAvx, kEnd - kAvx, true);
  switch (static_cast<XsaveKind>(kind)) {
    case XsaveKind::Fxsave: return fxsave(*c, linear, wide);
    case XsaveKind::Fxrstor: return fxrstor(*c, linear, wide);
    case XsaveKind::Xsaves: return xsave(*c, linear, XsaveKind::Xsaves, wide);
    case XsaveKind::Xrstor: return xrstor(*c, linear, false, wide, segment, offset);
    case XsaveKind::Xrstors: return xrstor(*c, linear, true, wide, segment, offset);
    default: return xsave(*c, linear, static_cast<XsaveKind>(kind), wide);
  }
}

void rt_x87_settle(CpuState* c) {
  uint16_t fsw;
  asm volatile("fnstsw %0" : "=a"(fsw));
  x87_settle(*c, fsw);
}

// FNSTENV, FLDENV, FNSAVE, FRSTOR (SDM vol. 1, 8.1.10). The host's own image is that of 32-bit protected mode.
void rt_x87_environment(CpuState* c, uint64_t linear, uint32_t kind, uint32_t operand_size) {
  const Vector bad_address = operand_size & kOperandStack ? kSs_ : kGp;
  operand_size &= kOperandSize;
  const bool small = operand_size == 2, real = real_or_v86(*c);
  const uint32_t environment = small ? 14 : 28;
  const bool with_registers = kind == static_cast<uint32_t>(X87Env::Save) || kind == static_cast<uint32_t>(X87Env::Rstor);
  const uint32_t total = environment + (with_registers ? 80 : 0);
  uint8_t* const host = c->bounce;         // 28 + 80
  uint8_t* const image = c->bounce + 256;  // the guest's
  const bool store = kind == static_cast<uint32_t>(X87Env::Stenv) || kind == static_cast<uint32_t>(X87Env::Save);
  if ((c->key & key::kAlignmentCheck) && (linear & (operand_size - 1))) raise(*c, kAc, 0);
  if (code64(*c) && (!canonical(linear) || !canonical(linear + total - 1))) raise(*c, bad_address, 0);
  if (store) {
    mmu_probe_write(*c, linear + total - 1, 1, false);  // the processors at hand look at the end first
    mmu_probe_write(*c, linear, total, false);
    rt_x87_settle(c);
    if (with_registers)
      asm volatile("fnsave %0" : "=m"(*reinterpret_cast<uint8_t(*)[108]>(host)));
    else
      asm volatile("fnstenv %0" : "=m"(*reinterpret_cast<uint8_t(*)[28]>(host)));
    const uint32_t ip = static_cast<uint32_t>(c->x87_ip), dp = static_cast<uint32_t>(c->x87_dp);
    if (small) {
      put<uint16_t>(image, get<uint16_t>(host));
      put<uint16_t>(image + 2, get<uint16_t>(host + 4));
      put<uint16_t>(image + 4, get<uint16_t>(host + 8));
      put<uint16_t>(image + 6, static_cast<uint16_t>(ip));
      put<uint16_t>(image + 8, real ? static_cast<uint16_t>((ip >> 16 & 15) << 12 | c->x87_opcode) : 0);
      put<uint16_t>(image + 10, static_cast<uint16_t>(dp));
      put<uint16_t>(image + 12, real ? static_cast<uint16_t>((dp >> 16 & 15) << 12) : 0);
    } else {
      copy(image, host, 12);
      if (real) {
        put<uint32_t>(image + 12, 0xffff0000 | (ip & 0xffff));
        put<uint32_t>(image + 16, (ip >> 16) << 12 | c->x87_opcode);
        put<uint32_t>(image + 20, 0xffff0000 | (dp & 0xffff));
        put<uint32_t>(image + 24, (dp >> 16) << 12);
      } else {
        put<uint32_t>(image + 12, ip);
        put<uint32_t>(image + 16, static_cast<uint32_t>(c->x87_opcode) << 16);
        put<uint32_t>(image + 20, dp);
        put<uint32_t>(image + 24, get<uint32_t>(host + 24) & 0xffff0000);
      }
    }
    copy(image + environment, host + 28, with_registers ? 80 : 0);
    mmu_write(*c, linear, image, total);
    if (with_registers) {
      c->x87_ip = c->x87_dp = 0;
      x87_loaded(*c);
    }
    return;
  }
  mmu_read(*c, linear + total - 1, image, 1);
  mmu_read(*c, linear, image, total);
  zero(host, 28);
  if (small) {
    put<uint16_t>(host, get<uint16_t>(image));
    put<uint16_t>(host + 4, get<uint16_t>(image + 2));
    put<uint16_t>(host + 8, get<uint16_t>(image + 4));
    const uint16_t high = get<uint16_t>(image + 8);
    c->x87_ip = get<uint16_t>(image + 6) | (real ? static_cast<uint32_t>(high >> 12) << 16 : 0);
    c->x87_dp = get<uint16_t>(image + 10) | (real ? static_cast<uint32_t>(get<uint16_t>(image + 12) >> 12) << 16 : 0);
    c->x87_opcode = real ? high & 0x7ff : 0;
  } else {
    copy(host, image, 12);
    const uint32_t high = get<uint32_t>(image + 16);
    if (real) {
      c->x87_ip = get<uint16_t>(image + 12) | (high >> 12 & 0xffff) << 16;
      c->x87_dp = get<uint16_t>(image + 20) | (get<uint32_t>(image + 24) >> 12 & 0xffff) << 16;
      c->x87_opcode = high & 0x7ff;
    } else {
      c->x87_ip = get<uint32_t>(image + 12);
      c->x87_opcode = high >> 16 & 0x7ff;
      c->x87_dp = get<uint32_t>(image + 20);
    }
  }
  x87_loaded(*c);
  copy(host + 28, image + environment, with_registers ? 80 : 0);
  if (with_registers)
    asm volatile("frstor %0" : : "m"(*reinterpret_cast<uint8_t(*)[108]>(host)));
  else
    asm volatile("fldenv %0" : : "m"(*reinterpret_cast<uint8_t(*)[28]>(host)));
}

}  // extern "C"

}  // namespace lodge::engine::soft
