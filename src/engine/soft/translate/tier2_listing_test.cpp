// Listings of what the second tier makes of some blocks, compared with those in tier2_listings.txt, so that a review shows what a change
// does to them. LODGE_WRITE_LISTINGS=1 writes the file anew.
#include <Zydis/Zydis.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/translate/tier2.hpp"

namespace lodge::engine::soft {
namespace {

struct Listed {
  const char* name;
  const char* guest;  // for people
  std::vector<uint8_t> bytes;
  bool user = true;
  bool code32 = false;
};

const std::vector<Listed>& blocks() {
  static const std::vector<Listed> all = {
      {"a function's beginning and end",
       "push rbx; mov rbx, rdi; mov rax, [rbx+8]; add rax, [rbx+16]; pop rbx; ret",
       {0x53, 0x48, 0x89, 0xfb, 0x48, 0x8b, 0x43, 0x08, 0x48, 0x03, 0x43, 0x10, 0x5b, 0xc3}},
      {"a loop over bytes",
       "movzx eax, byte [rdi]; inc rdi; cmp al, 10; jne -10; ret",
       {0x0f, 0xb6, 0x07, 0x48, 0xff, 0xc7, 0x3c, 0x0a, 0x75, 0xf6, 0xc3}},
      {"flags across a store", "cmp rsi, rdx; mov [rdi], rcx; jb +2; ret", {0x48, 0x39, 0xd6, 0x48, 0x89, 0x0f, 0x72, 0x02, 0xc3}},
      {"registers that lie in the state", "mov r10, [r15+r11*8]; add r10, rax; ret", {0x4f, 0x8b, 0x14, 0xdf, 0x49, 0x01, 0xc2, 0xc3}},
      {"a call into another page", "call +0x2000", {0xe8, 0x00, 0x20, 0x00, 0x00}},
      {"a jump by a table", "jmp [rax*8+0x1000]", {0xff, 0x24, 0xc5, 0x00, 0x10, 0x00, 0x00}},
      {"a vector operand of a thread's memory", "paddd xmm1, fs:[rdi]; ret", {0x64, 0x66, 0x0f, 0xfe, 0x0f, 0xc3}},
      {"what the first tier does", "rep movsb; ret", {0xf3, 0xa4, 0xc3}},
      {"the kernel's way in",
       "swapgs; mov gs:[0x6014], rsp; cli; ret",
       {0x0f, 0x01, 0xf8, 0x65, 0x48, 0x89, 0x24, 0x25, 0x14, 0x60, 0, 0, 0xfa, 0xc3},
       false},
      {"a function of 32-bit code",
       "push ebp; mov ebp, esp; mov eax, [ebp+8]; inc eax; mov [0xc0001000], eax; leave; ret",
       {0x55, 0x89, 0xe5, 0x8b, 0x45, 0x08, 0x40, 0xa3, 0x00, 0x10, 0x00, 0xc0, 0xc9, 0xc3},
       false,
       true},
      {"a call through a table of 32-bit code", "call [ebx+ecx*4+16]", {0xff, 0x54, 0x8b, 0x10}, true, true},
  };
  return all;
}

class Lister {
 public:
  Lister() : cache_(1 << 16) {
    Assembler as(cache_.data(), cache_.data() + cache_.size());
    emit_thunks(as, thunks_);
    from_ = as.size() + 64;
    names_ = {{thunks_.exit_host - cache_.data(), "exit_host"},
              {thunks_.exit_state - cache_.data(), "exit_state"},
              {thunks_.leave - cache_.data(), "leave"},
              {thunks_.miss - cache_.data(), "miss"},
              {thunks_.resolve[0] - cache_.data(), "resolve_read"},
              {thunks_.resolve[1] - cache_.data(), "resolve_write"},
              {thunks_.run_slow - cache_.data(), "run_slow"}};
    state_ = {{offsetof(CpuState, rip), "rip"},
              {offsetof(CpuState, next_rip), "next_rip"},
              {offsetof(CpuState, flags_of), "flags"},
              {offsetof(CpuState, flags_low), "flags_low"},
              {offsetof(CpuState, eflags_system), "eflags_system"},
              {offsetof(CpuState, code_page), "code_page"},
              {offsetof(CpuState, tlb), "tlb"},
              {offsetof(CpuState, jump_salt), "jump_salt"},
              {offsetof(CpuState, jump_index), "jump_index"},
              {offsetof(CpuState, jump_from), "jump_from"},
              {offsetof(CpuState, request), "request"},
              {offsetof(CpuState, chain), "chain"},
              {offsetof(CpuState, self), "self"},
              {offsetof(CpuState, replay), "replay"},
              {offsetof(CpuState, shadow), "attention"},
              {offsetof(CpuState, scratch), "scratch"},
              {offsetof(CpuState, msrs) + offsetof(Msrs, kernel_gs_base), "kernel_gs_base"},
              {kJumpTableOffset + offsetof(JumpTable, code), "jump_table.code"},
              {kJumpTableOffset + offsetof(JumpTable, tag), "jump_table.tag"}};
    static constexpr const char* kGpr[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    for (int r = 0; r < 16; ++r) state_[gpr_offset(r)] = fmt::format("guest.{}", kGpr[r]);
    for (uint32_t i = 0; i < kGroupSlots; ++i) state_[offsetof(CpuState, group) + 8 * i] = fmt::format("group[{}]", i);
    for (const SegmentIndex s : {kFs, kGs})
      state_[offsetof(CpuState, seg) + s * sizeof(SegmentRegister) + offsetof(SegmentRegister, base)] = s == kFs ? "fs.base" : "gs.base";
    ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&formatter_, ZYDIS_FORMATTER_STYLE_INTEL);
  }

  std::string list(const Listed& block) {
    std::vector<uint8_t> page(4096, 0xcc);
    constexpr uint32_t kAt = 0x100;
    std::copy(block.bytes.begin(), block.bytes.end(), page.begin() + kAt);
    Assembler as(cache_.data() + from_, cache_.data() + cache_.size());
    const uint32_t code = block.code32 ? key::kCode32 | key::kStack32 : key::kCode64 | key::kLongMode;
    const uint32_t key = code | key::kProtected | (block.user ? key::kUser : 0);
    Tier2 tier(workspace_, as, cache_.data(), thunks_, {key, false, false, false});
    Tier2Code made;
    if (!tier.translate(page.data(), nullptr, kAt, made)) return "not translated\n";
    std::string text;
    uint32_t at = made.begin;
    while (at < made.end) {
      if (is_edge(at, page.data(), made)) {
        text += "  (edge)\n";
        at += sizeof(Edge);
        continue;
      }
      for (const auto& [name, offset] :
           {std::pair{"entry", made.entry}, {"direct, flags in the host's", made.direct_host}, {"body", made.body}, {"dead", made.dead}})
        if (offset == at) text += fmt::format("{}:\n", name);
      text += "  " + line(at, made) + "\n";
    }
    return text;
  }

 private:
  // The record of an edge, which stands before its stub.
  bool is_edge(uint32_t at, const uint8_t* page, const Tier2Code& code) const {
    if (at % 8 || at + sizeof(Edge) > code.end) return false;
    const auto* const edge = reinterpret_cast<const Edge*>(&cache_[at]);
    return edge->page == page && edge->displacement > code.begin && edge->displacement < code.end;
  }

  // Advances `at`.
  std::string line(uint32_t& at, const Tier2Code& code) {
    ZydisDecodedInstruction in;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_, &cache_[at], code.end - at, &in, operand)))
      return fmt::format("byte {:#04x}", cache_[at++]);
    at += in.length;
    if (in.meta.category == ZYDIS_CATEGORY_NOP || in.meta.category == ZYDIS_CATEGORY_WIDENOP) return fmt::format("nop{}", in.length);
    if (operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand[0].imm.is_relative) {
      const int64_t target = static_cast<int64_t>(at) + operand[0].imm.value.s;
      const auto name = names_.find(target);
      return fmt::format("{} {}", ZydisMnemonicGetString(in.mnemonic),
                         name != names_.end() ? name->second : fmt::format("+{:#x}", target - code.begin));
    }
    char text[128];
    ZydisFormatterFormatInstruction(&formatter_, &in, operand, in.operand_count_visible, text, sizeof text, ZYDIS_RUNTIME_ADDRESS_NONE,
                                    nullptr);
    std::string shown = text;
    for (uint32_t i = 0; i < in.operand_count_visible; ++i) {
      if (operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY && operand[i].mem.segment == ZYDIS_REGISTER_GS &&
          operand[i].mem.disp.has_displacement) {
        const auto name = state_.find(static_cast<uint32_t>(operand[i].mem.disp.value));
        if (name == state_.end()) continue;
        const size_t end = shown.find(']', shown.find("gs:["));
        const size_t begin = shown.find_last_of("[+", end) + 1;
        shown.replace(begin, end - begin, name->second);
      }
      // Addresses of this process.
      if (operand[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand[i].imm.value.u >> 32 && in.length == 10 &&
          operand[0].reg.value == ZYDIS_REGISTER_RAX)
        shown = "mov rax, a helper";
      if (operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY && operand[i].mem.base == ZYDIS_REGISTER_RIP) {
        const size_t begin = shown.find('[');
        shown.replace(begin, shown.find(']') - begin, fmt::format("[+{:#x}", at + operand[i].mem.disp.value - code.begin));
      }
    }
    return shown;
  }

  std::vector<uint8_t> cache_;
  Thunks thunks_{};
  size_t from_ = 0;
  Tier2::Workspace workspace_;
  std::map<int64_t, std::string> names_;
  std::map<uint32_t, std::string> state_;
  ZydisDecoder decoder_{};
  ZydisFormatter formatter_{};
};

TEST(Tier2Listings, AreThoseInTheFile) {
  const std::string path = LODGE_LISTINGS;
  std::string made;
  Lister lister;
  for (const Listed& block : blocks()) made += fmt::format("# {}\n#   {}\n{}\n", block.name, block.guest, lister.list(block));
  if (std::getenv("LODGE_WRITE_LISTINGS")) {
    std::ofstream(path) << made;
    return;
  }
  std::ifstream file(path);
  std::stringstream known;
  known << file.rdbuf();
  EXPECT_EQ(made, known.str()) << "if this is meant: LODGE_WRITE_LISTINGS=1, and look at the difference";
}

}  // namespace
}  // namespace lodge::engine::soft
