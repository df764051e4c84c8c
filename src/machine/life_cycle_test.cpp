#include "machine/life_cycle.hpp"

#include <asm/bootparam.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <cstring>
#include <fstream>
#include <sstream>

#include "machine/boot_layout.hpp"
#include "machine/fake_engine.hpp"

namespace lodge::machine {
namespace {

using fake::in;
using fake::out;

const fake::Exit kPowerOff = out(0x604, 2, 5 << 10 | 1 << 13);
const fake::Exit kReset = out(0xcf9, 1, 0x06);
const fake::Exit kTripleFault{KVM_EXIT_SHUTDOWN};

class LifeCycle : public testing::Test {
 protected:
  void SetUp() override {
    folder = testing::TempDir() + "/lodge-machine-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    config.kernel = folder + "/kernel";
    config.memory = 64 * kMiB;
    config.serial = "file:" + folder + "/serial";
    write_kernel();
  }
  void TearDown() override { ASSERT_EQ(system(("rm -r '" + folder + "'").c_str()), 0); }

  // The smallest bzImage that is taken: a set-up sector and some code that unpacks itself.
  void write_kernel() {
    std::array<char, 2048> file{};
    setup_header header{};
    header.setup_sects = 1;
    header.syssize = 64;
    header.boot_flag = 0xaa55;
    header.jump = static_cast<uint16_t>(0xeb | 0x66 << 8);
    header.header = 0x53726448;
    header.version = 0x20f;
    header.loadflags = LOADED_HIGH;
    header.cmdline_size = 2047;
    header.xloadflags = XLF_KERNEL_64;
    std::memcpy(file.data() + 0x1f1, &header, sizeof header);
    std::ofstream(config.kernel, std::ios::binary).write(file.data(), file.size());
  }
  Result<ExitCode> boot(std::vector<std::vector<fake::Exit>> boots) {
    script.boots = std::move(boots);
    script.next_boot = 0;
    return run(config, [this]() -> Result<std::unique_ptr<engine::System>> { return std::make_unique<fake::System>(script); });
  }
  std::string serial_output() {
    std::ostringstream text;
    text << std::ifstream(folder + "/serial").rdbuf();
    return text.str();
  }
  std::string folder;
  Config config;
  fake::Script script;
};

TEST_F(LifeCycle, PowerOffEndsWith0) {
  const auto code = boot({{out(0x3f8, 1, 'h'), out(0x3f8, 1, 'i'), kPowerOff}});
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(*code, ExitCode::PoweredOff);
  EXPECT_EQ(serial_output(), "hi");
}

TEST_F(LifeCycle, FirstVcpuStartsAtThe64BitEntry) {
  ASSERT_TRUE(boot({{kPowerOff}}));
  EXPECT_EQ(script.entry.rip, 0x100200u);
  EXPECT_EQ(script.entry.rsi, kBootParams);
  EXPECT_EQ(script.entry_sregs.cr3, kBootPageTables);
  EXPECT_EQ(script.entry_sregs.efer, 0x500u);
  EXPECT_EQ(script.entry_sregs.cs.l, 1);
  EXPECT_EQ(script.entry_sregs.cs.selector, 0x10);
}

TEST_F(LifeCycle, EveryKindOfResetBootsAgain) {
  const auto code = boot({{kReset}, {out(0x64, 1, 0xfe)}, {out(0x92, 1, 1)}, {kTripleFault}, {kPowerOff}});
  ASSERT_TRUE(code);
  EXPECT_EQ(*code, ExitCode::PoweredOff);
  EXPECT_EQ(script.next_boot, 5u);
}

TEST_F(LifeCycle, ResetGivesFreshDevices) {
  const auto code = boot({{out(0x3ff, 1, 0x55), in(0x3ff, 1), kReset}, {in(0x3ff, 1), kPowerOff}});
  ASSERT_TRUE(code);
  EXPECT_EQ(script.read, (std::vector<uint32_t>{0x55, 0x00}));
}

TEST_F(LifeCycle, APanicEndsWith3WhereNoRebootIsWanted) {
  EXPECT_EQ(*boot({{out(0x505, 1, 1), kPowerOff}}), ExitCode::PoweredOff) << "the guest goes on";
  config.reboot = false;
  EXPECT_EQ(*boot({{out(0x505, 1, 1)}}), ExitCode::GuestCrashed);
}

TEST_F(LifeCycle, ATestProgramEndsWithItsOwnCode) {
  EXPECT_EQ(*boot({{out(0x501, 1, 0x10), kPowerOff}}), ExitCode::PoweredOff) << "there is no such port";
  config.debug_exit = true;
  EXPECT_EQ(static_cast<int>(*boot({{out(0x501, 1, 0x10)}})), 0x21);
}

TEST_F(LifeCycle, NoRebootEndsWith0AtAResetAndWith3AtATripleFault) {
  config.reboot = false;
  EXPECT_EQ(*boot({{kReset}}), ExitCode::PoweredOff);
  script = {};
  testing::internal::CaptureStderr();
  EXPECT_EQ(*boot({{kTripleFault}}), ExitCode::GuestCrashed);
  const std::string dump = testing::internal::GetCapturedStderr();
  EXPECT_NE(dump.find("triple fault"), std::string::npos);
  EXPECT_NE(dump.find("RIP=0000000000100200"), std::string::npos) << dump;
}

TEST_F(LifeCycle, EngineFailureEndsWith1AndADump) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(*boot({{fake::Exit{KVM_EXIT_INTERNAL_ERROR}}}), ExitCode::Failed);
  const std::string dump = testing::internal::GetCapturedStderr();
  EXPECT_NE(dump.find("internal error"), std::string::npos);
  EXPECT_NE(dump.find("CR3="), std::string::npos);
}

TEST_F(LifeCycle, AllVcpusHaltedWithInterruptsOffIsStuck) {
  config.vcpus = 2;
  config.watch_ns = 1'000'000;
  script.halted_with_interrupts_off = true;
  testing::internal::CaptureStderr();
  EXPECT_EQ(*boot({{}}), ExitCode::GuestCrashed);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("interrupts off"), std::string::npos);
}

TEST_F(LifeCycle, UnknownPortsReadAllOnes) {
  ASSERT_TRUE(boot({{in(0x1234, 1), in(0x1234, 4), out(0x1234, 2, 7), kPowerOff}}));
  EXPECT_EQ(script.read, (std::vector<uint32_t>{0xff, 0xffffffff}));
}

TEST_F(LifeCycle, KeyboardAnswerRaisesIrq1) {
  ASSERT_TRUE(boot({{out(0x60, 1, 0xf2), in(0x60, 1), kPowerOff}}));
  ASSERT_FALSE(script.lines.empty());
  EXPECT_EQ(script.lines.front(), std::pair(1u, true));
  EXPECT_EQ(script.read, std::vector<uint32_t>{0xfa});
}

TEST_F(LifeCycle, BadInputIsRefusedBeforeTheEngineOpens) {
  bool opened = false;
  const auto refused = [&](const Config& wrong, const std::string& part) {
    const auto code = run(wrong, [&]() -> Result<std::unique_ptr<engine::System>> {
      opened = true;
      return fail(ErrorKind::Internal, "not to be reached");
    });
    ASSERT_FALSE(code);
    EXPECT_EQ(exit_code_of(code.error()), ExitCode::BadInput);
    EXPECT_NE(code.error().message.find(part), std::string::npos) << code.error().message;
  };
  Config wrong = config;
  wrong.kernel = folder + "/none";
  refused(wrong, "No such file");
  wrong.kernel = folder;
  refused(wrong, "not a regular file");
  wrong.kernel = "/dev/zero";
  refused(wrong, "not a regular file");
  wrong = config;
  wrong.initrd = folder + "/none";
  refused(wrong, "initrd");
  std::ofstream(folder + "/empty");
  wrong.initrd = folder + "/empty";
  refused(wrong, "empty");
  EXPECT_FALSE(opened);
}

TEST_F(LifeCycle, MoreVcpusThanTheEngineHasAreRefused) {
  config.vcpus = 5;
  const auto code = boot({{}});
  ASSERT_FALSE(code);
  EXPECT_EQ(exit_code_of(code.error()), ExitCode::BadInput);
  EXPECT_NE(code.error().message.find("at most 4"), std::string::npos);
}

TEST_F(LifeCycle, EngineThatDoesNotWorkIsBadInput) {
  const auto code =
      run(config, []() -> Result<std::unique_ptr<engine::System>> { return fail(ErrorKind::Unsupported, "use --engine soft"); });
  ASSERT_FALSE(code);
  EXPECT_EQ(exit_code_of(code.error()), ExitCode::BadInput);
}

}  // namespace
}  // namespace lodge::machine
