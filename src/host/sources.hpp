// Where the facts about the host come from: files below a root, and probes that ask the kernel or the processor.
//
// A test gives a folder of its own as root and its own probes, so every host that Lodge may meet can be described.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace lodge::host {

// What /dev/kvm says when it is opened and asked.
struct KvmAnswer {
  int open_errno = 0;                       // 0: it opened
  int api_version = 0;                      // KVM_GET_API_VERSION; 12 since Linux 2.6.22
  std::map<std::string, int> capabilities;  // KVM_CHECK_EXTENSION by the constant's name without KVM_CAP_; 0: not offered
};

struct Sources {
  std::filesystem::path root = "/";
  std::function<std::string()> kernel_release;                      // uname -r
  std::function<std::string()> user_name;                           // of the effective user
  std::function<std::string()> hypervisor_signature;                // CPUID 4000_0000h; empty without a hypervisor
  std::function<std::optional<uint64_t>(uint32_t index)> read_msr;  // of processor 0; nothing where not permitted
  std::function<std::optional<std::string>()> kernel_log;           // nothing where not permitted
  std::function<KvmAnswer(const std::filesystem::path& device)> ask_kvm;
  // Each of these tries the thing itself and returns 0 where it works, else the errno of the refusal.
  std::function<int()> io_uring;
  std::function<int()> userfaultfd;
  std::function<int(const std::filesystem::path& device)> open_tun;
  std::function<int()> executable_memfd;
  std::function<bool()> avx;            // AVX and XSAVE, with the states that programs may use: CPUID leaf 1, XCR0
  std::function<bool()> user_fsgsbase;  // RDFSBASE and kin in user mode: AT_HWCAP2 bit 1
};

// The machine this runs on.
[[nodiscard]] Sources system_sources();

// The text of a file below the root (`path` without a leading slash), or nothing if it cannot be read.
[[nodiscard]] std::optional<std::string> read_text(const Sources& sources, const std::string& path);

[[nodiscard]] bool exists(const Sources& sources, const std::string& path);

}  // namespace lodge::host
