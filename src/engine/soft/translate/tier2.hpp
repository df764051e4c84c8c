// The second tier: whole blocks of 64-bit code, and of 32-bit code in flat segments, with the guest's registers in the host's.
//
// Between two instructions of a block the guest's registers lie in the host registers of the same number, but for RSP, which is in
// the host's R15, and R10, R11 and R15, which stay in CpuState: the host's R10 and R11 are the translator's scratch. The host's RSP is
// the host's stack. What the second tier does not emit itself it hands to the first, with all state put back into CpuState before.
//
// Arithmetic flags are in the host's flags, in CpuState, or both (Flags); look-ups destroy those in the host's. They are put
// aside before only when something still reads them, or can be had again from an instruction's result (Recipe). A block has
// entries for direct jumps with the flags in the host's and in the state, and one for indirect jumps, which checks the jump table's
// tag and so has them in the state.
//
// 32-bit code runs as 64-bit code of the host whose addresses are computed with 32 bits: what the upper halves of the registers hold does
// not matter. Its FS and GS are the first tier's, as they are flat in no system.
//
// RIP is CpuState::code_page plus what is known at translation, so that translations serve at any linear address. It is written only where
// it can be seen: before helpers, and at exits. SideTable leads from host code to guest instructions for faults of copied instructions.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/soft/translate/cache.hpp"
#include "engine/soft/translate/resolve.hpp"
#include "engine/soft/translate/tier1.hpp"

namespace lodge::engine::soft {

// The host's register that holds a guest's, -1: none.
constexpr int host_of(int guest) { return guest == kRsp ? hR15 : guest == kR10 || guest == kR11 || guest == kR15 ? -1 : guest; }
constexpr std::array<int, 16> kHostOf = [] {
  std::array<int, 16> map{};
  for (int r = 0; r < 16; ++r) map[static_cast<size_t>(r)] = host_of(r);
  return map;
}();
// R10 and R11 of the host.
constexpr Host kS0 = hR10, kS1 = hR11;

// The arithmetic flags to CpuState, by way of RAX, which is lost: LAHF's byte and OF.
inline void flags_to_state(Assembler& as) {
  as.lahf();
  as.set_overflow_al();
  as.store(offsetof(CpuState, flags_of), hRax, 2);
}

// Code that all translations use, at the beginning of the cache. Addresses in the writable mapping.
struct Thunks {
  uint8_t* enter;       // void(const void* entry): from C++ into translated code
  uint8_t* exit_host;   // to the loop: registers to CpuState, flags from the host's
  uint8_t* exit_state;  // the same with the flags in CpuState already
  uint8_t* leave;       // the same with everything in CpuState already
  uint8_t* miss;        // R10 is the target: indirect jumps that found nothing, or while a request waits
  // Slow path of look-ups, by whether it writes: R11 = linear address, R10 = ResolveForm; returns the addend in R11. Flags in CpuState; the
  // second, which saves them, goes on with the first.
  uint8_t *resolve[2], *resolve_host[2];
  // What an Edge's calls go to, by whether the flags are in CpuState, and with them there by whether it is user code.
  uint8_t *unlinked[2], *indirect_host[2], *indirect_state[2];
  uint8_t* exit_at;   // to the loop at an offset of the page, R10; flags in CpuState
  uint8_t* run_slow;  // leaves for one run of the instruction at RIP in the first tier; flags in CpuState
};
void emit_thunks(Assembler& as, Thunks& thunks);

struct Tier2Options {
  uint32_t key;
  bool exact_flags;    // arithmetic flags are exact in exceptions' frames even where the code overwrites them unread
  bool virtual_clock;  // instructions are counted, nothing takes effect at other places than in the first tier
  bool ungrouped;      // each look-up answers for one access
};

// Translates one block.
class Tier2 {
 public:
  static constexpr uint32_t kMaxInstructions = 64;

  // Memory that translations use one after the other.
  struct Workspace;

  Tier2(Workspace& workspace, Assembler& as, const uint8_t* cache_begin, const Thunks& thunks, const Tier2Options& options);
  Tier2(const Tier2&) = delete;
  Tier2& operator=(const Tier2&) = delete;

  // The instructions at `at` (an offset) of the page whose bytes are given, as far as they lie in it. With a second page: the one
  // instruction that goes on there; only the jump table may lead to it, since the page is that of the linear address. False: this tier
  // does nothing with what begins there.
  bool translate(const uint8_t* page, const uint8_t* second_page, uint32_t at, Tier2Code& result);

  // Virtual clock: whether the instruction neither looks at the time nor brings events, so that it may stand anywhere in a block. The
  // same answer in both tiers.
  static bool counts_freely(const Instruction& in, uint32_t key);

  static void table_jump(Assembler& as, bool indexed);

 private:
  enum class Kind : uint8_t {
    Copy,
    Lea,
    Push,
    PushMemory,
    PushFlags,
    Pop,
    Leave,
    Call,
    CallIndirect,
    Return,
    Jump,
    JumpIndirect,
    Condition,
    Nothing,
    Pause,
    Swapgs,  // these at CPL 0
    Cli,
    Sti,
    Stac,
    Clac,
    Bridge,  // the first tier's code
  };
  // Where the arithmetic flags are; none: nobody reads them any more, or a Recipe gives them.
  static constexpr uint8_t kInHost = 1, kInState = 2;
  // Parts of them whose liveness is followed apart, since INC and DEC leave CF.
  static constexpr uint8_t kCarry = 1, kOthers = 2, kAll = 3;

  // A memory operand without its constant part. Registers are the guest's.
  struct Place {
    int base = -1, index = -1;
    uint8_t scale = 0;    // log 2
    int8_t segment = -1;  // FS or GS
    bool rip = false;
    uint32_t base_version = 0, index_version = 0;
    bool operator==(const Place&) const = default;
  };
  struct Access {
    Place place;
    int64_t displacement = 0;  // from what the base was when its version began
    uint32_t size = 0;         // bytes
    uint32_t flags = 0;        // kOperandStack and so on
    bool write = false, valid = false;
  };
  struct Item {
    Instruction in;
    uint16_t offset = 0;  // from the block's first byte
    Kind kind = Kind::Bridge;
    uint8_t reads = 0, writes = 0;  // parts of the flags: needed; wholly written
    bool modifies = false;          // any flag
    uint8_t live_out = 0;
    Access access;
    uint16_t used = 0;     // of Copy: general registers
    uint16_t written = 0;  // general registers
    int adjusted = -1;     // one of them only by a constant, `adjustment`
    int64_t adjustment = 0;
    [[nodiscard]] uint8_t live_in() const { return static_cast<uint8_t>(reads | (live_out & ~writes)); }
  };
  // An addend found by a look-up that answers for [low, high) from a place.
  struct Group {
    Place place;
    int64_t low = 0, high = 0;
    bool write = false, valid = false;
  };
  // How to have the flags of an instruction again, as long as its operands are what they were.
  struct Recipe {
    enum class Kind : uint8_t { None, Test, Again, Add, Subtract } kind = Kind::None;
    int left = -1, right = -1;  // guest registers
    int32_t immediate = 0;      // without `right`
    uint8_t size = 0;           // bytes
    uint32_t left_version = 0, right_version = 0;
    int64_t left_delta = 0, right_delta = 0;
    uint32_t item = 0;  // Again
  };
  // Code out of line.
  struct Stub {
    enum class Kind : uint8_t { Resolve, Edge, Request, Slow, Leave, Shadow } kind{};
    uint8_t* from = nullptr;  // the rel32 that leads here
    uint8_t* back = nullptr;
    uint32_t item = 0;
    Place place;
    int64_t displacement = 0;
    ResolveForm form{};
    uint8_t flags = 0;
    Recipe recipe;
    int64_t recipe_adjust = 0;
    uint32_t target = 0;     // offset in the page
    bool ungrouped = false;  // Edge: to the form that looks up each access
    int x87 = -1;
  };

  // --- tier2_decode.cpp: what the instructions are
  Item& fresh_item();  // in the workspace; the decoder has not filled it in yet
  bool decode_all();
  bool decode_across();
  void classify(Item& item) const;
  void flag_use(Item& item) const;
  void register_changes(Item& item) const;
  Access access_of(const Item& item, const ZydisDecodedOperand& operand, uint32_t size, bool write) const;
  Access stack_access(int64_t displacement, bool write, int base = kRsp) const;
  void find_accesses();
  void find_liveness();
  uint8_t live_at(int64_t page_offset);
  uint8_t find_live_at(uint32_t page_offset);
  [[nodiscard]] bool encodable(const Item& item) const;
  void advance_versions(const Item& item);
  [[nodiscard]] int64_t target_of(const Item& item) const { return at_ + item.offset + item.in.length() + item.in.operand[0].imm.value.s; }
  static bool in_page(int64_t offset) { return offset >= 0 && offset < 4096; }

  // --- tier2.cpp: frame of a block
  void emit_entries();
  bool emit_item(uint32_t i);  // false: the block has ended with it
  void emit_stubs();
  void note(uint32_t item, bool spilled, uint8_t flags, int x87);
  [[nodiscard]] uint32_t cache_offset(const uint8_t* p) const { return static_cast<uint32_t>(p - begin_); }
  void load_rip(Host into, int64_t page_offset);
  void store_rip(Host through, int64_t page_offset);
  void count_back(uint32_t completed);
  bool bridge(uint32_t i);
  bool bridge_end(uint32_t i);
  static bool falls_through(const Instruction& in);
  void nothing_known();

  // --- tier2_flags.cpp
  void save_flags(Host scratch);
  void restore_flags();
  void before_clobber(uint8_t live);
  void need_host_flags(bool scratch_free);
  void need_state_flags(Host scratch = kS0);
  void materialise(const Recipe& recipe, int64_t adjust, bool scratch_free);
  [[nodiscard]] bool recipe_valid() const;
  [[nodiscard]] Recipe recipe_of(const Item& item) const;
  // A stub that takes the flags over as they are, behind a check that has lost the host's; flags_of_stub() brings those to hand there.
  [[nodiscard]] Stub stub_with_flags(Stub::Kind kind, Assembler::Label from, uint32_t item) const;
  void flags_of_stub(const Stub& stub);

  // --- tier2_memory.cpp
  Address look_up(uint32_t i, const Access& access, bool leave_scratch);
  void range_of(uint32_t i, const Access& access, int64_t& low, int64_t& high, bool& shared) const;
  void linear_into(const Place& place, int64_t displacement);
  void from_registers(Host into, const Place& place, int32_t displacement);
  Address with_addend(const Place& place, int64_t displacement, bool leave_scratch);
  void emit_resolve(const Stub& stub);

  // --- tier2_copy.cpp
  void copy(uint32_t i);
  void encode(const Instruction& in, const Address* memory, const std::array<int, 16>& map);
  void load_guest(Host into, int guest);
  void store_guest(int guest, Host from);
  void lea(const Item& item);
  void x87_instruction(uint32_t i, bool memory);
  void commit_x87(int item);

  // --- tier2_flow.cpp
  void push(uint32_t i);
  void push_memory(uint32_t i);
  void push_flags(uint32_t i);
  void swapgs(uint32_t i);
  void interrupt_flag(uint32_t i, bool set);
  void access_flag(uint32_t i, bool set);
  void pop(uint32_t i);
  void leave(uint32_t i);
  void call(uint32_t i);
  void call_indirect(uint32_t i);
  void ret(uint32_t i);
  void jump_indirect(uint32_t i);
  void condition(uint32_t i);
  void jump_relative(uint32_t i, int64_t target);
  void through_table(uint32_t i, int32_t popped, uint8_t live);  // R10 is the target
  void push_return(uint32_t i);
  void edge(uint32_t i, uint32_t target, uint8_t live, uint32_t completed);
  void prepare_exit(uint8_t live);
  void emit_edge(const Stub& stub);
  void emit_request(const Stub& stub);
  void adjust_stack(int32_t by);

  struct Live {
    uint32_t offset;
    uint8_t parts;
  };

  Assembler& as_;
  const uint8_t* begin_;
  const Thunks& thunks_;
  Tier2Options o_;
  const bool code64_;
  const uint32_t word_;  // bytes of what PUSH pushes
  Tier1 first_;
  Tier2Code* result_ = nullptr;
  const uint8_t* page_ = nullptr;
  const uint8_t* second_page_ = nullptr;
  uint32_t at_ = 0;      // offset of the first instruction in the page
  uint32_t length_ = 0;  // bytes
  Workspace& workspace_;
  std::vector<Item*>& items_;
  std::vector<Stub>& stubs_;
  bool failed_ = false;  // an assumption does not hold: no translation by this tier

  // While emitting.
  uint8_t flags_ = kInHost;
  uint8_t live_in_ = 0;  // of the block: then its body begins with the flags in the state
  Recipe recipe_;
  std::array<Group, kGroupSlots> groups_{};
  uint32_t next_group_ = 0;
  int addend_group_ = -1;  // the group whose addend R11 holds
  std::array<uint32_t, 16> version_{};
  std::array<int64_t, 16> delta_{};
  int x87_ = -1;  // the item whose x87 pointers are not in CpuState yet
  uint8_t* body_ = nullptr;
  uint8_t* direct_host_ = nullptr;
};

struct Tier2::Workspace {
  std::vector<std::unique_ptr<Item>> pool;  // one more than a block can have, for looking ahead
  std::vector<Item*> items;
  std::vector<Stub> stubs;
  std::vector<Live> live;  // what live_at() has found
  // Of the result.
  std::vector<uint16_t> offset, x87_opcode;
  std::vector<Tier2Code::Side> side;
  Workspace();
};

}  // namespace lodge::engine::soft
