// Which engine runs the VMs: `auto`, `kvm` or `soft`.
//
// /dev/kvm can exist and open and still be unable to run an unmodified guest, so `auto` takes the kernel's
// KVM only after it has proved itself on a small 64-bit payload.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "engine/api/engine.hpp"
#include "engine/soft/soft.hpp"

namespace lodge::engine::select {

// What the functional proof found out.
struct Proof {
  bool works = false;
  std::string reason;       // one sentence for a person: why not, and what to do; or that the guest ran as it should
  double milliseconds = 0;  // from the start of the child process to its end
};

// Runs a small 64-bit payload (paging, control registers, MSRs, descriptor tables, INVLPG, an interrupt through
// an IDT) in a throw-away VM on `device`, in a child process that is killed and reaped after two seconds (a
// tenth of one on a processor without VT-x and SVM) if it does not end by itself. Leaves nothing behind. Some milliseconds where KVM works.
// Threads: any.
[[nodiscard]] Proof prove_kvm(const std::string& device = "/dev/kvm");

// prove_kvm() of /dev/kvm, run once in a process and remembered.
[[nodiscard]] const Proof& proof_of_kvm();

// The same payload on an opened system, in this process and without a deadline.
[[nodiscard]] Proof prove_system(System& system);

struct Choice {
  std::string engine;  // "kvm" or "soft"; empty if neither works
  std::string why;     // one sentence for a person
};

// What `auto` takes: the kernel's KVM if prove_kvm() says that it works, else Lodge's own engine. The proof is run
// once in a process and remembered.
[[nodiscard]] Choice choose_auto();

// Opens the engine `name`: "auto", "kvm" or "soft". "kvm" is refused with ErrorKind::Unsupported, and the proof's reason,
// where it does not run a guest. Any other name is ErrorKind::Usage. `soft` holds the options of Lodge's own engine, ignored
// by the kernel's.
[[nodiscard]] Result<std::unique_ptr<System>> open_system(std::string_view name, const soft::Options& soft = {});

}  // namespace lodge::engine::select
