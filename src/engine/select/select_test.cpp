#include "engine/select/select.hpp"

#include <gtest/gtest.h>

namespace lodge::engine::select {
namespace {

TEST(Select, UnknownEngineIsAUsageError) {
  const auto system = open_system("bochs");
  ASSERT_FALSE(system);
  EXPECT_EQ(system.error().kind, ErrorKind::Usage);
}

TEST(Select, OwnEngineRunsTheProof) {
  const auto system = open_system("soft");
  ASSERT_TRUE(system) << system.error().message;
  EXPECT_EQ((*system)->name(), "soft");
  const Proof proof = prove_system(**system);
  EXPECT_TRUE(proof.works) << proof.reason;
}

TEST(Select, AutoTakesWhatItSays) {
  const Choice choice = choose_auto();
  const auto system = open_system("auto");
  ASSERT_TRUE(system) << system.error().message;
  EXPECT_EQ((*system)->name(), choice.engine);
  EXPECT_EQ(choice.engine == "kvm", prove_kvm().works);
}

// Where the kernel's KVM does not run a guest, asking for it is refused with the reason.
TEST(Select, KvmIsRefusedWithTheProofsReason) {
  const auto system = open_system("kvm");
  if (system) {
    EXPECT_EQ((*system)->name(), "kvm");
    return;
  }
  EXPECT_FALSE(system.error().message.empty());
  EXPECT_NE(system.error().message.find("soft"), std::string::npos) << system.error().message;
}

}  // namespace
}  // namespace lodge::engine::select
