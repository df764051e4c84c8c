#include <fmt/format.h>

#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

TEST(LoadSegment, ProtectedModeRules) {
  struct Case {
    uint32_t cpl, index, selector;
    const char* outcome;
  };
  const Case cases[] = {
      {0, kDs, kData, ""},
      {0, kDs, 0, ""},
      {0, kDs, 3, ""},
      {3, kDs, kUserData | 3, ""},
      {3, kDs, kUserData, ""},
      {3, kDs, kData, "#GP(0x10)"},             // CPL > DPL
      {0, kDs, kData | 3, "#GP(0x10)"},         // RPL > DPL
      {0, kEs, kUserData | 3, ""},              // inner code may load outer data
      {3, kEs, kUserCode32 | 3, ""},            // readable code
      {3, kEs, kConforming | 3, ""},            // conforming: no privilege check
      {3, kFs, kExecuteOnly | 3, "#GP(0x50)"},  // not readable
      {3, kGs, kAbsentData | 3, "#NP(0x48)"},
      {0, kDs, kTss, "#GP(0x78)"},  // a system segment
      {0, kDs, kBeyond, "#GP(0x200)"},
      {0, kDs, 0x0c, "#GP(0xc)"},   // LDT entry 1 is a null descriptor
      {0, kDs, 0x2c, "#GP(0x2c)"},  // beyond the LDT
      {0, kSs, kData, ""},
      {3, kSs, kUserData | 3, ""},
      {0, kSs, 0, "#GP(0x0)"},
      {0, kSs, kUserData, "#GP(0x20)"},        // DPL != CPL
      {3, kSs, kUserData, "#GP(0x20)"},        // RPL != CPL
      {3, kSs, kReadOnly | 3, "#GP(0x40)"},    // not writable
      {3, kSs, kUserCode32 | 3, "#GP(0x18)"},  // code
      {3, kSs, kAbsentData | 3, "#SS(0x48)"},
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("cpl {} index {} selector {:#x}", t.cpl, t.index, t.selector));
    Machine m;
    m.protected32(t.cpl);
    const SegmentRegister before = m.c.seg[t.index];
    EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, t.index, t.selector); }), t.outcome);
    if (*t.outcome) {
      EXPECT_EQ(m.c.seg[t.index].selector, before.selector);
      EXPECT_EQ(m.c.shadow, kShadowNone);
    } else {
      EXPECT_EQ(m.c.seg[t.index].selector, t.selector);
      EXPECT_EQ(m.c.shadow, t.index == kSs ? kShadowMovSs : kShadowNone);
      const bool usable = m.c.seg[t.index].attributes & attr::kPresent;
      EXPECT_EQ(usable, (t.selector & ~3u) != 0);
    }
  }
}

TEST(LoadSegment, HiddenPartIsTheDescriptorAndIsMarkedAccessed) {
  Machine m;
  m.protected32(0);
  m.set_descriptor(kData, descriptor(0x12345678, 0xabcde, 0x92, 0xd));
  EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, kFs, kData); }), "");
  EXPECT_EQ(m.c.seg[kFs].base, 0x12345678u);
  EXPECT_EQ(m.c.seg[kFs].limit, 0xabcdefffu);
  EXPECT_EQ(m.c.seg[kFs].attributes, 0xd093);
  EXPECT_EQ(m.get<uint8_t>(kGdt + kData + 5), 0x93);
}

TEST(LoadSegment, AReadOnlyGdtFaultsBeforeTheRegisterChanges) {
  Machine m;
  m.protected32(0);
  m.read_only.insert(kGdt >> 12);
  EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, kFs, kUserData); }), "#PF(0x3)");
  EXPECT_EQ(m.c.seg[kFs].selector, kData);
}

TEST(LoadSegment, NullStackOnlyInInner64BitCode) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, kSs, 0); }), "");
  EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, kSs, 1); }), "#GP(0x0)");
  m.long64(3);
  EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, kSs, 3); }), "#GP(0x0)");
}

TEST(LoadSegment, RealModeKeepsLimitsAndV86FixesThem) {
  Machine m;
  m.real();
  m.c.seg[kDs].limit = 0xffffffff;
  EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, kDs, 0x1234); }), "");
  EXPECT_EQ(m.c.seg[kDs].base, 0x12340u);
  EXPECT_EQ(m.c.seg[kDs].limit, 0xffffffffu);
  m.v86(3);
  m.c.seg[kDs].limit = 5;
  EXPECT_EQ(m.run([&] { sys_load_segment(&m.c, kDs, 0x1234); }), "");
  EXPECT_EQ(m.c.seg[kDs].limit, 0xffffu);
  EXPECT_EQ(m.c.seg[kDs].attributes, 0xf3);
}

TEST(SegmentLinear, LimitsTypesAndWrap) {
  Machine m;
  m.protected32(3);
  auto& s = m.c.seg[kDs];
  const auto at = [&](uint64_t offset, uint32_t size, bool write) { return m.run([&] { segment_linear(m.c, kDs, offset, size, write); }); };
  s = {0x1000, 0xfff, kUserData | 3, 0x40f3};
  EXPECT_EQ(at(0xffc, 4, true), "");
  EXPECT_EQ(at(0xffd, 4, true), "#GP(0x0)");
  s.attributes = 0x40f1;
  EXPECT_EQ(at(0, 4, true), "#GP(0x0)");
  EXPECT_EQ(at(0, 4, false), "");
  s.attributes = 0x40f9;  // execute only
  EXPECT_EQ(at(0, 4, false), "#GP(0x0)");
  s.attributes = 0x40fb;
  EXPECT_EQ(at(0, 4, false), "");
  EXPECT_EQ(at(0, 4, true), "#GP(0x0)");
  s.attributes = 0x40f7;  // expand-down, B
  EXPECT_EQ(at(0xfff, 1, true), "#GP(0x0)");
  EXPECT_EQ(at(0x1000, 4, true), "");
  EXPECT_EQ(at(0xfffffffd, 4, true), "#GP(0x0)");
  s.attributes = 0x00f7;  // expand-down, 64 KiB
  EXPECT_EQ(at(0xfffc, 4, true), "");
  EXPECT_EQ(at(0xfffd, 4, true), "#GP(0x0)");
  s.attributes = 0;
  EXPECT_EQ(at(0x1000, 1, false), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { m.c.seg[kSs].limit = 1, segment_linear(m.c, kSs, 2, 1, false); }), "#SS(0x0)");
  s = {0xfffff000, 0xffffffff, 0, 0xc0f3};
  EXPECT_EQ(segment_linear(m.c, kDs, 0x2000, 4, true), 0x1000u);
}

TEST(SegmentLinear, In64BitCodeOnlyFsAndGsHaveBasesAndAddressesAreCanonical) {
  Machine m;
  m.long64(3);
  m.c.seg[kDs].base = m.c.seg[kGs].base = 0x10000;
  m.c.seg[kDs].limit = 0;
  EXPECT_EQ(segment_linear(m.c, kDs, 0x5000, 8, true), 0x5000u);
  EXPECT_EQ(segment_linear(m.c, kGs, 0x5000, 8, true), 0x15000u);
  EXPECT_EQ(m.run([&] { segment_linear(m.c, kDs, 0x7ffffffffff9, 8, true); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { segment_linear(m.c, kDs, 0x7ffffffffff8, 8, true); }), "");
  EXPECT_EQ(m.run([&] { segment_linear(m.c, kSs, 0x800000000000, 8, true); }), "#SS(0x0)");
}

TEST(Stack, PushAndPopKeepTheUpperPartOfA16BitPointer) {
  Machine m;
  m.real();
  m.c.gpr[kRsp] = 0xabcd0000;
  EXPECT_EQ(m.run([&] { push(m.c, 0x1122, 2); }), "");
  EXPECT_EQ(m.c.gpr[kRsp], 0xabcdfffeu);
  EXPECT_EQ(m.get<uint16_t>(0x2fffe), 0x1122);
  EXPECT_EQ(m.run([&] { EXPECT_EQ(pop(m.c, 2), 0x1122u); }), "");
  EXPECT_EQ(m.c.gpr[kRsp], 0xabcd0000u);
  m.c.gpr[kRsp] = 0xffff;
  EXPECT_EQ(m.run([&] { pop(m.c, 2); }), "#SS(0x0)");
  EXPECT_EQ(m.c.gpr[kRsp], 0xffffu);
}

TEST(Ldt, LoadRules) {
  struct Case {
    uint32_t selector;
    const char* outcome;
  };
  for (const Case& t : {Case{kLdt, ""}, {0, ""}, {4, "#GP(0x4)"}, {kData, "#GP(0x10)"}, {kTss, "#GP(0x78)"}, {kBeyond, "#GP(0x200)"}}) {
    Machine m;
    m.protected32(0);
    EXPECT_EQ(m.run([&] { sys_lldt(&m.c, t.selector); }), t.outcome) << t.selector;
  }
  Machine m;
  m.protected32(0);
  m.set_descriptor(kLdt, descriptor(0x1800, 0x1f, 0x02, 0));
  EXPECT_EQ(m.run([&] { sys_lldt(&m.c, kLdt); }), "#NP(0x68)");
  m.protected32(3);
  EXPECT_EQ(m.run([&] { sys_lldt(&m.c, kLdt); }), "#GP(0x0)");
  m.real();
  EXPECT_EQ(m.run([&] { sys_lldt(&m.c, kLdt); }), "#UD");
}

TEST(TaskRegister, BecomesBusyInMemoryAndHasA64BitBaseInLongMode) {
  Machine m;
  m.long64(0);
  m.put<uint64_t>(kGdt + kFreeTss + 8, 0xffff8000);
  EXPECT_EQ(m.run([&] { sys_ltr(&m.c, kFreeTss); }), "");
  EXPECT_EQ(m.c.tr.base, 0xffff800000000000u | kFreeTssBase);
  EXPECT_EQ(m.c.tr.attributes & 15, 11);
  EXPECT_EQ(m.get<uint8_t>(kGdt + kFreeTss + 5), 0x8b);
  EXPECT_EQ(m.run([&] { sys_ltr(&m.c, kFreeTss); }), "#GP(0x88)") << "busy now";
  EXPECT_EQ(m.run([&] { sys_ltr(&m.c, 0); }), "#GP(0x0)");
}

TEST(DescriptorTables, StoreAndLoad) {
  Machine m;
  m.protected32(0);
  m.put<uint16_t>(0x6000, 0x123);
  m.put<uint32_t>(0x6002, 0x89abcdef);
  EXPECT_EQ(m.run([&] { sys_lgdt(&m.c, 0x6000, 4); }), "");
  EXPECT_EQ(m.c.gdtr.base, 0x89abcdefu);
  EXPECT_EQ(m.c.gdtr.limit, 0x123u);
  EXPECT_EQ(m.run([&] { sys_lidt(&m.c, 0x6000, 2); }), "");
  EXPECT_EQ(m.c.idtr.base, 0xabcdefu) << "24 bits with a 16-bit operand";
  EXPECT_EQ(m.run([&] { sys_sgdt(&m.c, 0x7000); }), "");
  EXPECT_EQ(m.get<uint32_t>(0x7002), 0x89abcdefu);
  EXPECT_EQ(m.get<uint8_t>(0x7006), 0);
  m.protected32(3);
  EXPECT_EQ(m.run([&] { sys_sgdt(&m.c, 0x7000); }), "");
  EXPECT_EQ(m.run([&] { sys_lgdt(&m.c, 0x7000, 4); }), "#GP(0x0)");
  m.c.cr4 |= cr4::kUmip;
  for (const auto& f :
       std::initializer_list<std::function<void()>>{[&] { sys_sgdt(&m.c, 0x7000); }, [&] { sys_sidt(&m.c, 0x7000); },
                                                    [&] { sys_sldt(&m.c); }, [&] { sys_str(&m.c); }, [&] { sys_smsw(&m.c); }})
    EXPECT_EQ(m.run(f), "#GP(0x0)");
  m.long64(0);
  m.put<uint64_t>(0x6002, 0x800000000000);
  EXPECT_EQ(m.run([&] { sys_lgdt(&m.c, 0x6000, 4); }), "#GP(0x0)") << "not canonical";
  m.put<uint64_t>(0x6002, 0xffff800000001000);
  EXPECT_EQ(m.run([&] { sys_lgdt(&m.c, 0x6000, 2); }), "");
  EXPECT_EQ(m.c.gdtr.base, 0xffff800000001000u);
}

TEST(LarLsl, VisibilityAndResults) {
  struct Case {
    uint32_t cpl, selector;
    bool lar, lsl, verr, verw;
  };
  const Case cases[] = {
      {0, kData, true, true, true, true},          {3, kData, false, false, false, false},
      {0, kData | 3, false, false, false, false},  {3, kUserCode32 | 3, true, true, true, false},
      {3, kExecuteOnly, true, true, false, false}, {3, kConforming | 3, true, true, true, false},
      {3, kReadOnly, true, true, true, false},     {0, kTss, true, true, false, false},
      {0, kCallGate, true, false, false, false},   {0, 0, false, false, false, false},
      {0, kBeyond, false, false, false, false},    {0, kLdt, true, true, false, false},
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("cpl {} selector {:#x}", t.cpl, t.selector));
    Machine m;
    m.protected32(t.cpl);
    const auto zf = [&] { return (m.c.flags_low & eflags::kZf) != 0; };
    EXPECT_EQ(m.run([&] {
      const uint64_t lar = sys_lar(&m.c, t.selector, 0xdead, 4);
      EXPECT_EQ(zf(), t.lar);
      if (!t.lar) {
        EXPECT_EQ(lar, 0xdeadu);
      }
      sys_lsl(&m.c, t.selector, 0, 4);
      EXPECT_EQ(zf(), t.lsl);
      sys_verr(&m.c, t.selector);
      EXPECT_EQ(zf(), t.verr);
      sys_verw(&m.c, t.selector);
      EXPECT_EQ(zf(), t.verw);
    }),
              "");
  }
  Machine m;
  m.protected32(0);
  EXPECT_EQ(sys_lar(&m.c, kData, 0, 4), 0x00cf9200u);  // bits 19:16, which are undefined, as the host leaves them
  EXPECT_EQ(sys_lar(&m.c, kData, 0x11112222, 2), 0x11119200u);
  EXPECT_EQ(sys_lsl(&m.c, kData, 0, 4), 0xffffffffu);
  EXPECT_EQ(sys_lsl(&m.c, kLdt, 0, 8), 0x1fu);
  m.v86(3);
  EXPECT_EQ(m.run([&] { sys_lar(&m.c, kData, 0, 4); }), "#UD");
}

TEST(Arpl, RaisesTheRpl) {
  Machine m;
  m.protected32(0);
  EXPECT_EQ(sys_arpl(&m.c, 0x10, 0x23), 0x13u);
  EXPECT_TRUE(m.c.flags_low & eflags::kZf);
  EXPECT_EQ(sys_arpl(&m.c, 0x13, 0x20), 0x13u);
  EXPECT_FALSE(m.c.flags_low & eflags::kZf);
}

}  // namespace
}  // namespace lodge::engine::soft
