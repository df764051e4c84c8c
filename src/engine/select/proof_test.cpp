#include "engine/select/proof.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/fd.hpp"
#include "engine/select/select.hpp"

namespace lodge::engine::select {
namespace {

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

TEST(ProveKvm, SaysWhatToDoWithoutADevice) {
  const Proof proof = prove_kvm("/nonexistent/kvm");
  EXPECT_FALSE(proof.works);
  EXPECT_NE(proof.reason.find("modprobe"), std::string::npos) << proof.reason;
}

TEST(ProveKvm, RefusesAFileThatIsNoKvm) {
  const Proof proof = prove_kvm("/dev/null");
  EXPECT_FALSE(proof.works);
  EXPECT_NE(proof.reason.find("not a KVM device"), std::string::npos) << proof.reason;
}

// Whatever the host's KVM does, the proof ends in time, says why, and leaves neither child nor descriptor behind.
TEST(ProveKvm, EndsAndLeavesNothingBehind) {
  const size_t before = open_descriptors();
  const Proof proof = prove_kvm();
  RecordProperty("reason", proof.reason);
  EXPECT_FALSE(proof.reason.empty());
  EXPECT_LT(proof.milliseconds, 10000);
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, __WALL | WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  printf("%s (%.1f ms)\n", proof.reason.c_str(), proof.milliseconds);
}

}  // namespace
}  // namespace lodge::engine::select
