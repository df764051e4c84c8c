#include "host/facts.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>

namespace lodge::host {
namespace {

using namespace std::string_literals;

// A host made of files in a folder of its own. Without a word from the test it has no processor virtualization, no modules,
// no /dev/kvm, is no guest and no container, and everything that is probed works.
class FactsTest : public testing::Test {
 protected:
  FactsTest() {
    std::string name = testing::TempDir() + "lodge-facts-XXXXXX";
    root_ = mkdtemp(name.data());
    sources_.root = root_;
    sources_.kernel_release = [] { return "6.1.0-test"; };
    sources_.user_name = [] { return "ada"; };
    sources_.hypervisor_signature = [this] { return signature_; };
    sources_.read_msr = [this](uint32_t index) { return index == msr_index_ ? msr_value_ : std::nullopt; };
    sources_.kernel_log = [this] { return log_; };
    sources_.ask_kvm = [this](const std::filesystem::path&) { return answer_; };
    sources_.io_uring = [] { return 0; };
    sources_.userfaultfd = [] { return EPERM; };
    sources_.open_tun = [](const std::filesystem::path&) { return 0; };
    sources_.executable_memfd = [] { return EACCES; };
    sources_.avx = [] { return true; };
    sources_.user_fsgsbase = [] { return true; };
  }
  ~FactsTest() override { std::filesystem::remove_all(root_); }

  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << text;
  }
  void put_processor(const std::string& vendor, const std::string& flags) {
    put("proc/cpuinfo", "processor\t: 0\nvendor_id\t: " + vendor + "\nmodel name\t: Some CPU @ 2GHz\nflags\t\t: fpu " + flags +
                            " sse\n\nprocessor\t: 1\nvendor_id\t: " + vendor + "\nflags\t\t: fpu\n");
  }

  std::filesystem::path root_;
  Sources sources_;
  std::string signature_;
  uint32_t msr_index_ = 0;
  std::optional<uint64_t> msr_value_;
  std::optional<std::string> log_;
  KvmAnswer answer_;
};

TEST_F(FactsTest, EmptyHostHasNothingAndDoesNotFail) {
  const Facts facts = gather(sources_);
  EXPECT_EQ(facts.processor.count, 0u);
  EXPECT_EQ(facts.processor.family(), Virtualization::None);
  EXPECT_EQ(facts.modules.kvm, ModuleState::Missing);
  EXPECT_FALSE(facts.modules.folder_present);
  EXPECT_FALSE(facts.kvm.present);
  EXPECT_EQ(facts.kvm.answer.open_errno, ENOENT);
  EXPECT_FALSE(facts.surroundings.guest);
  EXPECT_EQ(facts.surroundings.container, "");
  EXPECT_EQ(facts.resources.memory_total, 0u);
  EXPECT_EQ(facts.resources.tun, ENOENT);
}

TEST_F(FactsTest, ProcessorOfIntelWithVmx) {
  put_processor("GenuineIntel", "vmx");
  const Processor processor = read_processor(sources_);
  EXPECT_EQ(processor.vendor, "GenuineIntel");
  EXPECT_EQ(processor.model, "Some CPU @ 2GHz");
  EXPECT_EQ(processor.count, 2u);
  EXPECT_TRUE(processor.vmx);
  EXPECT_FALSE(processor.svm);
  EXPECT_STREQ(module_of(processor.family()), "kvm_intel");
}

TEST_F(FactsTest, ProcessorOfAmdWithoutSvmStillNamesItsModule) {
  put_processor("AuthenticAMD", "svm_lock xsvm");  // words that only contain "svm" are other flags
  const Processor processor = read_processor(sources_);
  EXPECT_FALSE(processor.svm);
  EXPECT_STREQ(module_of(processor.family()), "kvm_amd");
}

TEST_F(FactsTest, FeatureControlLockedWithoutVmxMeansThatFirmwareDisables) {
  put_processor("GenuineIntel", "vmx");
  msr_index_ = 0x3a;
  msr_value_ = 0x1;
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Disables);
  msr_value_ = 0x3;  // only inside SMX
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Disables);
  msr_value_ = 0x5;
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Allows);
  msr_value_ = 0x0;  // not locked: the kernel sets what it needs
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Allows);
}

TEST_F(FactsTest, VmCrLockedWithSvmDisabledMeansThatFirmwareDisables) {
  put_processor("AuthenticAMD", "svm");
  msr_index_ = 0xc0010114;
  msr_value_ = 0x18;
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Disables);
  msr_value_ = 0x08;
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Allows);
}

TEST_F(FactsTest, KernelLogTellsOfFirmwareWhenFlagIsGone) {
  put_processor("GenuineIntel", "");
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Unknown);
  log_ = "<6>[    0.1] x86/cpu: VMX (outside TXT) disabled by BIOS\n";
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Disables);
  log_ = "<6>[    0.1] all is well\n";
  EXPECT_EQ(read_processor(sources_).firmware, Firmware::Unknown);
}

TEST_F(FactsTest, ModulesAreFoundInEachOfTheirStates) {
  put("proc/modules", "kvm_amd 208896 0 - Live 0x0\nkvm 1335296 1 kvm_amd, Live 0x0\nirqbypass 12288 1 kvm, Live 0x0\n");
  put("lib/modules/6.1.0-test/modules.dep", "kernel/arch/x86/kvm/kvm-intel.ko.xz: kernel/arch/x86/kvm/kvm.ko.xz\n");
  put("lib/modules/6.1.0-test/modules.builtin", "kernel/fs/ext4.ko\n");
  const Modules modules = read_modules(sources_);
  EXPECT_TRUE(modules.folder_present);
  EXPECT_EQ(modules.kvm, ModuleState::Loaded);
  EXPECT_EQ(modules.kvm_amd, ModuleState::Loaded);
  EXPECT_EQ(modules.kvm_intel, ModuleState::Available);
  EXPECT_EQ(modules.kvm_pvm, ModuleState::Missing);
  EXPECT_EQ(modules.of("kvm_intel"), ModuleState::Available);
}

TEST_F(FactsTest, ModuleIsBuiltInByListOrBySysfs) {
  put("lib/modules/6.1.0-test/modules.builtin", "kernel/arch/x86/kvm/kvm.ko\n");
  put("sys/module/kvm_pvm/parameters/x", "1\n");
  const Modules modules = read_modules(sources_);
  EXPECT_EQ(modules.kvm, ModuleState::BuiltIn);
  EXPECT_EQ(modules.kvm_pvm, ModuleState::BuiltIn);
  EXPECT_TRUE(active(modules.kvm_pvm));
  EXPECT_FALSE(active(modules.kvm_intel));
}

TEST_F(FactsTest, LoadedModuleIsNotMistakenForOneWithALongerName) {
  put("proc/modules", "kvm_intel_extra 4096 0 - Live 0x0\n");
  EXPECT_EQ(read_modules(sources_).kvm_intel, ModuleState::Missing);
}

TEST_F(FactsTest, DeviceAndGroup) {
  put("dev/kvm", "");
  put("etc/group", "root:x:0:\nkvm:x:104:bob,ada\n");
  answer_ = {.open_errno = EACCES, .api_version = 0, .capabilities = {}};
  const KvmDevice device = read_kvm_device(sources_);
  EXPECT_TRUE(device.present);
  EXPECT_EQ(device.answer.open_errno, EACCES);
  EXPECT_TRUE(device.group_has_kvm);
  EXPECT_TRUE(device.user_in_group);
  put("etc/group", "kvm:x:104:adam\n");
  EXPECT_FALSE(read_kvm_device(sources_).user_in_group);
}

TEST_F(FactsTest, GuestOfKnownAndUnknownHypervisor) {
  signature_ = "KVMKVMKVM";
  put("sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
  put("sys/class/dmi/id/product_name", "t3.large\n");
  Surroundings surroundings = read_surroundings(sources_);
  EXPECT_TRUE(surroundings.guest);
  EXPECT_EQ(surroundings.hypervisor, "KVM");
  EXPECT_EQ(surroundings.machine, "Amazon EC2 t3.large");
  signature_ = "SomethingNew";
  EXPECT_EQ(read_surroundings(sources_).hypervisor, "SomethingNew");
}

TEST_F(FactsTest, ContainersOfAllKinds) {
  put("proc/1/cgroup", "0::/system.slice/docker-abc.scope\n");
  EXPECT_EQ(read_surroundings(sources_).container, "docker");
  put("proc/1/environ", "HOME=/\0container=lxc\0TERM=x\0"s);
  EXPECT_EQ(read_surroundings(sources_).container, "lxc");
  put("run/.containerenv", "");
  EXPECT_EQ(read_surroundings(sources_).container, "podman");
  put(".dockerenv", "");
  EXPECT_EQ(read_surroundings(sources_).container, "docker");
  put("run/systemd/container", "systemd-nspawn\n");
  EXPECT_EQ(read_surroundings(sources_).container, "systemd-nspawn");
}

TEST_F(FactsTest, Resources) {
  put("proc/meminfo",
      "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\nHugePages_Total:       8\nHugePages_Free:        3\n"
      "Hugepagesize:       2048 kB\n");
  put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  put("dev/net/tun", "");
  const Resources resources = read_resources(sources_);
  EXPECT_EQ(resources.memory_total, 2048u * 1024);
  EXPECT_EQ(resources.memory_available, 1024u * 1024);
  EXPECT_EQ(resources.hugepages_total, 8u);
  EXPECT_EQ(resources.hugepages_free, 3u);
  EXPECT_EQ(resources.hugepage_size, 2048u * 1024);
  EXPECT_EQ(resources.transparent_hugepages, "madvise");
  EXPECT_EQ(resources.io_uring, 0);
  EXPECT_EQ(resources.userfaultfd, EPERM);
  EXPECT_EQ(resources.tun, 0);
  EXPECT_EQ(resources.executable_memfd, EACCES);
  EXPECT_TRUE(resources.avx);
  EXPECT_TRUE(resources.user_fsgsbase);
}

// The real host: only what must hold on every machine that runs this test.
TEST(SystemSources, GathersThisMachine) {
  const Facts facts = gather(system_sources());
  EXPECT_GE(facts.processor.count, 1u);
  EXPECT_FALSE(facts.processor.vendor.empty());
  EXPECT_FALSE(facts.modules.kernel_release.empty());
  EXPECT_FALSE(facts.kvm.user.empty());
  EXPECT_GT(facts.resources.memory_total, 0u);
}

}  // namespace
}  // namespace lodge::host
