#include "machine/config.hpp"

#include <gtest/gtest.h>

namespace lodge::machine {
namespace {

Config good() {
  Config config;
  config.kernel = "vmlinuz";
  return config;
}

void expect_refused(const Config& config, const std::string& part) {
  const auto result = validate(config);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::Usage);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST(Config, DefaultsWithAKernelAreGood) { EXPECT_TRUE(validate(good())); }

TEST(Config, RefusesWhatCannotBe) {
  Config config = good();
  config.kernel.clear();
  expect_refused(config, "--kernel");
  config.machine = Kind::Direct;
  expect_refused(config, "--kernel");
  config = good();
  config.vcpus = 0;
  expect_refused(config, "-c 0");
  config.vcpus = 255;
  expect_refused(config, "254");
  config = good();
  config.memory = 15 * kMiB;
  expect_refused(config, "16 MiB");
  config.memory = 16 * kMiB + 4096;
  expect_refused(config, "whole number");
  config.memory = 2048 * kGiB;
  expect_refused(config, "at most");
  config = good();
  config.engine = "xen";
  expect_refused(config, "xen");
  config = good();
  config.cpu = "486";
  expect_refused(config, "486");
}

TEST(Config, VirtualClockNeedsTheSoftEngineAndOneVcpu) {
  Config config = good();
  config.virtual_clock = true;
  EXPECT_TRUE(validate(config));
  config.vcpus = 2;
  expect_refused(config, "one vCPU");
  config.vcpus = 1;
  config.engine = "kvm";
  expect_refused(config, "soft");
}

TEST(Config, AProfileNeedsTheSoftEngine) {
  Config config = good();
  config.profile = "report";
  EXPECT_TRUE(validate(config));
  config.engine = "kvm";
  expect_refused(config, "soft");
}

TEST(Config, AJitDumpNeedsTheSoftEngine) {
  Config config = good();
  config.jitdump = "/tmp";
  EXPECT_TRUE(validate(config));
  config.engine = "kvm";
  expect_refused(config, "soft");
}

const std::string kMeminfo =
    "MemTotal:        8388608 kB\nMemFree: 10 kB\nMemAvailable:    4194304 kB\nSwapTotal:       1048576 kB\nSwapFree:        1048576 kB\n";

TEST(HostMemory, FitsIntoWhatIsAvailableWithSwap) {
  EXPECT_TRUE(check_host_memory(4 * kGiB, kMeminfo, "0\n"));
  EXPECT_TRUE(check_host_memory(5 * kGiB, kMeminfo, "0\n"));
}

TEST(HostMemory, MoreThanAvailableIsRefusedUnlessOvercommitted) {
  const auto refused = check_host_memory(6 * kGiB, kMeminfo, "0\n");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::Usage);
  EXPECT_NE(refused.error().message.find("5120 MiB available"), std::string::npos) << refused.error().message;
  EXPECT_TRUE(check_host_memory(6 * kGiB, kMeminfo, "1\n"));
}

TEST(HostMemory, MoreThanTheHostHasIsRefusedAlways) { EXPECT_FALSE(check_host_memory(10 * kGiB, kMeminfo, "1\n")); }

TEST(HostMemory, AHostThatDoesNotSayIsTrusted) { EXPECT_TRUE(check_host_memory(kGiB, "", "")); }

}  // namespace
}  // namespace lodge::machine
