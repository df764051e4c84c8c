// The native side on instructions whose results are known: what it compares the engine with must itself be right.
#include "native.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "compare.hpp"
#include "generator.hpp"

namespace lodge::oracle {
namespace {

class NativeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto native = Native::create();
    if (native) native_ = std::move(*native).release();
  }
  void SetUp() override {
    if (!native_) GTEST_SKIP() << "this kernel has no modify_ldt";
  }

  // A case with a plain state, the instruction in the middle of the first code page.
  static Case plain(Mode mode, std::initializer_list<uint8_t> bytes) {
    Case c;
    c.mode = mode;
    c.length = uint8_t(bytes.size());
    std::copy(bytes.begin(), bytes.end(), c.bytes.begin());
    State& s = c.initial;
    s.vectors.xstate_bv = 7;
    s.vectors.fcw = 0x37f;
    s.vectors.mxcsr = 0x1f80;
    s.rflags = 0x202;
    s.rip = kCode + 0x100;
    s.gpr[kRsp] = kStack + kPage;
    s.cs = mode == Mode::Code64 ? kSelUserCode64 : kSelUserCode32;
    s.ss = kSelUserData;
    if (mode == Mode::Code32) s.ds = s.es = kSelUserData;
    if (mode == Mode::Code16) {
      s.rip -= kCode16Base;
      s.cs = kSelCode16;
      s.ss = kSelStack16;
      s.ds = s.es = kSelData16;
      s.gpr[kRsp] = kEspHigh16 | (kStack + kPage - kStack16Base);
    }
    Patch p = {kCode + 0x100, c.length, {}};
    std::memcpy(p.data.data(), c.bytes.data(), c.length);
    c.patches.push_back(p);
    return c;
  }
  static Outcome run(const Case& c) {
    Outcome out;
    native_->run(c, out);
    return out;
  }

  static Native* native_;
};
Native* NativeTest::native_ = nullptr;

TEST_F(NativeTest, AddStopsBehindItselfWithResultAndFlags) {
  Case c = plain(Mode::Code64, {0x48, 0x01, 0xc8});  // add rax, rcx
  c.initial.gpr[kRax] = ~uint64_t{0};
  c.initial.gpr[kRcx] = 1;
  const Outcome out = run(c);
  EXPECT_EQ(out.vector, 3);
  EXPECT_EQ(out.state.rip, kCode + 0x104);  // behind the INT3
  EXPECT_EQ(out.state.gpr[kRax], 0u);
  EXPECT_EQ(out.state.rflags & 0x8d5, 0x55u);  // CF, PF, AF, ZF
}

TEST_F(NativeTest, TrapFlagStopsAfterOneIterationOfRep) {
  Case c = plain(Mode::Code64, {0xf3, 0xaa});  // rep stosb
  c.trap_flag = true;
  c.initial.rflags |= 0x100;
  c.initial.gpr[kRcx] = 3;
  c.initial.gpr[kRdi] = kData;
  const Outcome out = run(c);
  EXPECT_EQ(out.vector, 1);
  EXPECT_EQ(out.state.rip, kCode + 0x100);
  EXPECT_EQ(out.state.gpr[kRcx], 2u);
  EXPECT_EQ(out.memory[size_t(image_offset(kData))], 0);
}

TEST_F(NativeTest, StoreAcrossIntoReadOnlyPageGivesErrorCodeAndAddressOfThatPage) {
  Case c = plain(Mode::Code64, {0x48, 0x89, 0x03});  // mov [rbx], rax
  c.initial.gpr[kRbx] = kData + 2 * kPage - 4;
  const Outcome out = run(c);
  EXPECT_EQ(out.vector, 14);
  EXPECT_EQ(out.error, 7u);  // present, write, user
  EXPECT_EQ(out.cr2, kData + 2 * kPage);
  EXPECT_EQ(out.memory, [&] {
    Image expected = pattern();
    std::memcpy(&expected[0x100], c.bytes.data(), 3);
    return expected;
  }());
}

TEST_F(NativeTest, NonCanonicalAddressIsGeneralProtection) {
  Case c = plain(Mode::Code64, {0x8b, 0x03});  // mov eax, [rbx]
  c.initial.gpr[kRbx] = 0x8000000000000000;
  const Outcome out = run(c);
  EXPECT_EQ(out.vector, 13);
  EXPECT_EQ(out.error, 0u);
}

TEST_F(NativeTest, ThirtyTwoBitCodeHasItsOwnEncodings) {
  Case c = plain(Mode::Code32, {0x40});  // inc eax; a REX prefix in 64-bit code
  c.initial.gpr[kRax] = 41;
  const Outcome out = run(c);
  EXPECT_EQ(out.vector, 3);
  EXPECT_EQ(out.state.cs, kSelUserCode32);
  EXPECT_EQ(out.state.gpr[kRax], 42u);
}

TEST_F(NativeTest, SixteenBitPushUsesSixteenBitStackSegment) {
  const Case c = plain(Mode::Code16, {0x68, 0x34, 0x12});  // push 1234h
  const Outcome out = run(c);
  EXPECT_EQ(out.vector, 3);
  EXPECT_EQ(out.state.gpr[kRsp], c.initial.gpr[kRsp] - 2);
  uint16_t pushed = 0;
  std::memcpy(&pushed, &out.memory[size_t(image_offset(kStack + kPage - 2))], 2);
  EXPECT_EQ(pushed, 0x1234);
}

TEST_F(NativeTest, SegmentLimitIsChecked) {
  Case c = plain(Mode::Code32, {0x8b, 0x03});  // mov eax, [ebx]
  c.initial.ds = ldt_selector(4);              // limit 17ffh
  c.initial.gpr[kRbx] = 0x17fd;
  EXPECT_EQ(run(c).vector, 13);
  c.initial.gpr[kRbx] = 0x17fc;
  EXPECT_EQ(run(c).vector, 3);
}

TEST_F(NativeTest, VectorStateIsLoadedAndRead) {
  Case c = plain(Mode::Code64, {0xc5, 0xfd, 0x6f, 0xca});  // vmovdqa ymm1, ymm2
  std::memset(c.initial.vectors.xmm[2], 0x11, 16);
  std::memset(c.initial.vectors.ymm_high[2], 0x22, 16);
  const Outcome out = run(c);
  EXPECT_EQ(out.state.vectors.xmm[1][5], 0x11);
  EXPECT_EQ(out.state.vectors.ymm_high[1][5], 0x22);
}

TEST_F(NativeTest, EveryFormRunsAndRepeatsExactly) {
  auto first = std::make_unique<Outcome>(), second = std::make_unique<Outcome>();
  for (const Mode mode : {Mode::Code64, Mode::Code32, Mode::Code16}) {
    const Forms forms(mode);
    ASSERT_GT(forms.tested().size(), 3000u);
    Random seeds(uint64_t(mode) + 1);
    for (int n = 0; n < 3000; ++n) {
      const auto c = generate(mode, seeds.next(), forms);
      ASSERT_TRUE(c.has_value());
      native_->run(*c, *first);
      native_->run(*c, *second);
      ASSERT_EQ(differences(*c, *first, *second), "") << bits(mode) << "-bit, case " << c->seed;
    }
  }
}

}  // namespace
}  // namespace lodge::oracle
