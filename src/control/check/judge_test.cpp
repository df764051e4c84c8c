#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <stdexcept>

#include "control/check/report.hpp"

namespace lodge::control {
namespace {

using engine::select::Choice;
using engine::select::Proof;
using host::Facts;
using host::Firmware;
using host::ModuleState;
using testing::HasSubstr;
using testing::Not;

// A desktop with VT-x, its module loaded, /dev/kvm open to ada: all is well. Tests take something away.
Facts good_host() {
  Facts facts;
  facts.processor = {.vendor = "GenuineIntel", .model = "Some CPU", .count = 4, .vmx = true, .svm = false, .firmware = Firmware::Allows};
  facts.modules = {.kernel_release = "6.1.0-9-amd64",
                   .folder_present = true,
                   .kvm = ModuleState::Loaded,
                   .kvm_intel = ModuleState::Loaded,
                   .kvm_amd = ModuleState::Available,
                   .kvm_pvm = ModuleState::Missing};
  facts.kvm.present = true;
  facts.kvm.user = "ada";
  facts.kvm.group_has_kvm = true;
  facts.kvm.answer.api_version = 12;
  for (const char* name : {"IRQCHIP", "PIT2", "IRQFD", "IOEVENTFD", "SIGNAL_MSI", "USER_MEMORY", "EXT_CPUID", "XSAVE", "IMMEDIATE_EXIT"})
    facts.kvm.answer.capabilities[name] = 1;
  facts.kvm.answer.capabilities["MAX_VCPUS"] = 1024;
  facts.resources.memory_total = facts.resources.memory_available = 8ull << 30;
  facts.resources.transparent_hugepages = "madvise";
  facts.resources.avx = true;
  facts.resources.user_fsgsbase = true;
  return facts;
}

const Proof kWorks{true, "/dev/kvm ran a 64-bit guest as it should", 4.5};
const Proof kHangs{false, "/dev/kvm opens, but its test guest hung", 2000};
const Choice kKvm{"kvm", kWorks.reason};
const Choice kSoft{"soft", kHangs.reason};

const Line& find(const Report& report, const std::string& id) {
  for (const Section& section : report.sections)
    for (const Line& line : section.lines)
      if (line.id == id) return line;
  throw std::out_of_range(id);
}

bool has(const Report& report, const std::string& id) {
  for (const Section& section : report.sections)
    for (const Line& line : section.lines)
      if (line.id == id) return true;
  return false;
}

void take_device_away(Facts& facts, int error) {
  facts.kvm.present = error != ENOENT;
  facts.kvm.answer = {.open_errno = error, .api_version = 0, .capabilities = {}};
}

TEST(Judge, GoodHostHasOnlyGoodLines) {
  const Report report = judge(good_host(), kWorks, kKvm);
  for (const Section& section : report.sections)
    for (const Line& line : section.lines) {
      EXPECT_EQ(line.verdict, Verdict::Good) << line.id << ": " << line.fact;
      EXPECT_EQ(line.advice, "") << line.id;
    }
  EXPECT_THAT(find(report, "kvm.proof").fact, HasSubstr("4.5 ms"));
  EXPECT_THAT(find(report, "kvm.api").fact, HasSubstr("1024"));
}

TEST(Judge, UnloadedIntelModuleGetsTheExactCommand) {
  Facts facts = good_host();
  facts.modules.kvm_intel = ModuleState::Available;
  take_device_away(facts, ENOENT);
  const Report report = judge(facts, {}, kSoft);
  EXPECT_EQ(find(report, "kvm.module").verdict, Verdict::Bad);
  EXPECT_THAT(find(report, "kvm.module").advice, HasSubstr("sudo modprobe kvm_intel"));
  EXPECT_THAT(find(report, "kvm.device").advice, HasSubstr("sudo modprobe kvm_intel"));
  EXPECT_FALSE(has(report, "kvm.proof"));
}

TEST(Judge, UnloadedAmdModuleGetsItsOwnCommand) {
  Facts facts = good_host();
  facts.processor.vendor = "AuthenticAMD";
  facts.processor.vmx = false;
  facts.processor.svm = true;
  take_device_away(facts, ENOENT);
  const Report report = judge(facts, {}, kSoft);
  EXPECT_THAT(find(report, "kvm.module").advice, HasSubstr("sudo modprobe kvm_amd"));
  EXPECT_THAT(find(report, "kvm.module").advice, Not(HasSubstr("kvm_intel")));
}

TEST(Judge, KernelWithoutTheModuleNeedsAnotherKernel) {
  Facts facts = good_host();
  facts.modules.kvm_intel = ModuleState::Missing;
  take_device_away(facts, ENOENT);
  const Line line = find(judge(facts, {}, kSoft), "kvm.module");
  EXPECT_EQ(line.verdict, Verdict::Bad);
  EXPECT_THAT(line.fact, HasSubstr("6.1.0-9-amd64"));
  EXPECT_THAT(line.advice, HasSubstr("linux-image-amd64"));
}

TEST(Judge, ContainerIsSentToItsHost) {
  Facts facts = good_host();
  facts.surroundings.container = "docker";
  facts.modules.kvm_intel = ModuleState::Missing;
  facts.modules.folder_present = false;
  take_device_away(facts, ENOENT);
  const Report report = judge(facts, {}, kSoft);
  EXPECT_THAT(find(report, "kvm.module").advice, HasSubstr("on the container's host"));
  EXPECT_EQ(find(report, "host.container").verdict, Verdict::Note);
  facts.modules.kvm_intel = ModuleState::Loaded;
  EXPECT_THAT(find(judge(facts, {}, kSoft), "kvm.device").advice, HasSubstr("--device /dev/kvm"));
}

TEST(Judge, DeviceWithoutModulesInAContainerNeedsNothing) {
  Facts facts = good_host();
  facts.surroundings.container = "docker";
  facts.modules.kvm_intel = ModuleState::Missing;
  EXPECT_EQ(find(judge(facts, kWorks, kKvm), "kvm.module").verdict, Verdict::Note);
}

TEST(Judge, RefusedUserIsSentToTheGroup) {
  Facts facts = good_host();
  take_device_away(facts, EACCES);
  EXPECT_THAT(find(judge(facts, {}, kSoft), "kvm.device").advice, HasSubstr("sudo usermod -aG kvm ada"));
  facts.kvm.user_in_group = true;
  EXPECT_THAT(find(judge(facts, {}, kSoft), "kvm.device").advice, HasSubstr("log out and in again"));
  facts.kvm.user_in_group = facts.kvm.group_has_kvm = false;
  EXPECT_THAT(find(judge(facts, {}, kSoft), "kvm.device").advice, HasSubstr("setfacl -m u:ada:rw /dev/kvm"));
}

TEST(Judge, FirmwareThatDisablesIsNamedAndModprobeIsNotAdvised) {
  Facts facts = good_host();
  facts.processor.firmware = Firmware::Disables;
  facts.modules.kvm_intel = ModuleState::Available;
  take_device_away(facts, ENOENT);
  const Report report = judge(facts, {}, kSoft);
  EXPECT_THAT(find(report, "processor.virtualization").advice, HasSubstr("firmware's setup"));
  EXPECT_THAT(find(report, "kvm.module").advice, HasSubstr("does not help"));
  EXPECT_EQ(find(report, "kvm.device").advice, "");
}

TEST(Judge, GuestWithoutVirtualizationIsToldAboutNesting) {
  Facts facts = good_host();
  facts.processor.vmx = false;
  facts.processor.firmware = Firmware::Unknown;
  facts.surroundings.guest = true;
  facts.surroundings.hypervisor = "KVM";
  take_device_away(facts, ENOENT);
  EXPECT_THAT(find(judge(facts, {}, kSoft), "processor.virtualization").advice, HasSubstr("modprobe kvm_intel nested=1"));
  facts.surroundings.hypervisor = "Hyper-V";
  EXPECT_THAT(find(judge(facts, {}, kSoft), "processor.virtualization").advice, HasSubstr("ExposeVirtualizationExtensions"));
}

TEST(Judge, PvmHostThatOpensButHangsIsToldTruly) {
  Facts facts = good_host();
  facts.processor = {.vendor = "AuthenticAMD", .model = "EPYC", .count = 2, .vmx = false, .svm = false, .firmware = Firmware::Unknown};
  facts.surroundings.guest = true;
  facts.surroundings.hypervisor = "KVM";
  facts.modules.kvm_intel = facts.modules.kvm_amd = ModuleState::Missing;
  facts.modules.kvm_pvm = ModuleState::BuiltIn;
  const Report report = judge(facts, kHangs, kSoft);
  EXPECT_EQ(find(report, "kvm.device").verdict, Verdict::Good);
  EXPECT_THAT(find(report, "kvm.pvm").fact, HasSubstr("only to guest kernels made for it"));
  EXPECT_EQ(find(report, "kvm.proof").verdict, Verdict::Bad);
  EXPECT_THAT(find(report, "kvm.proof").fact, HasSubstr("hung"));
  EXPECT_THAT(find(report, "kvm.proof").advice, HasSubstr("a stock kernel would hang"));
  EXPECT_EQ(report.choice.engine, "soft");
}

TEST(Judge, WrongApiVersionAndMissingCapabilitiesAreBad) {
  Facts facts = good_host();
  facts.kvm.answer.capabilities["IRQFD"] = 0;
  EXPECT_THAT(find(judge(facts, kWorks, kKvm), "kvm.api").fact, HasSubstr("without IRQFD"));
  EXPECT_EQ(find(judge(facts, kWorks, kKvm), "kvm.api").verdict, Verdict::Bad);
  facts.kvm.answer.api_version = 11;
  EXPECT_THAT(find(judge(facts, kWorks, kKvm), "kvm.api").fact, HasSubstr("version 11"));
}

TEST(Judge, SoftEnginesNeedsAreBadWhenMissingItsWishesOnlyNoted) {
  Facts facts = good_host();
  facts.resources.executable_memfd = EACCES;
  facts.resources.avx = false;
  facts.resources.user_fsgsbase = false;
  facts.resources.userfaultfd = EPERM;
  facts.resources.io_uring = ENOSYS;
  facts.resources.tun = ENOENT;
  const Report report = judge(facts, kWorks, kKvm);
  EXPECT_EQ(find(report, "soft.memfd").verdict, Verdict::Bad);
  EXPECT_THAT(find(report, "soft.memfd").advice, HasSubstr("vm.memfd_noexec=0"));
  EXPECT_EQ(find(report, "soft.avx").verdict, Verdict::Bad);
  EXPECT_EQ(find(report, "soft.fsgsbase").verdict, Verdict::Bad);
  EXPECT_EQ(find(report, "soft.userfaultfd").verdict, Verdict::Note);
  EXPECT_EQ(find(report, "host.io_uring").verdict, Verdict::Note);
  EXPECT_THAT(find(report, "host.tun").advice, HasSubstr("modprobe tun"));
}

}  // namespace
}  // namespace lodge::control
