#include "console/cleanup.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/fd.hpp"

namespace lodge::console::cleanup {

namespace {

constexpr size_t kMostFiles = 8;

// Shared with the guard process, so that it knows what is still to be undone when this process is gone.
struct Duties {
  std::atomic<int> terminal;  // descriptor, or -1
  termios modes;
  struct File {
    std::atomic<bool> kept;
    char path[4096];
    ino_t inode;  // 0: there was none
    dev_t device;
  };
  std::array<File, kMostFiles> files;
};
Duties* duties = nullptr;
std::atomic<pid_t> owner = 0;

constexpr std::array kFatal{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ};

// Another process may have put a file of its own in the place of one that is gone.
bool is_the_one(const Duties::File& file) {
  struct stat info{};
  return file.inode == 0 || (lstat(file.path, &info) == 0 && info.st_ino == file.inode && info.st_dev == file.device);
}

void undo(Duties& work) {
  if (const int terminal = work.terminal.exchange(-1); terminal >= 0) tcsetattr(terminal, TCSANOW, &work.modes);
  for (Duties::File& file : work.files)
    if (file.kept.exchange(false) && is_the_one(file)) unlink(file.path);
}

void on_fatal(int signal) {
  if (getpid() == owner) undo_all();
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  sigaction(signal, &standard, nullptr);
  raise(signal);
}

[[noreturn]] void guard(int pipe_fd) {
  prctl(PR_SET_NAME, "lodge-guard");
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);  // tcsetattr from the background must not stop it, nor Ctrl-C end it
  // Its modes may become a duty later.
  const int terminal = isatty(STDIN_FILENO) ? STDIN_FILENO : -1;
  // Whoever reads our output must see its end when the owner is gone.
  for (int fd = 0; fd < 1024; ++fd)
    if (fd != pipe_fd && fd != terminal) close(fd);
  char byte = 0;
  while (read(pipe_fd, &byte, 1) < 0 && errno == EINTR) {
  }
  undo(*duties);
  _exit(0);
}

bool guard_started = false;

// The guard starts with the first duty; the pipe's writing end lives as long as the process.
Result<> start_guard() {
  if (guard_started) return {};
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return os_fail("pipe for the guard process");
  Fd reading(ends[0]);
  Fd writing(ends[1]);
  const pid_t child = fork();
  if (child < 0) return os_fail("starting the guard process");
  if (child == 0) {
    // A grandchild has no parent that would have to wait for it.
    if (fork() != 0) _exit(0);
    guard(reading.get());
  }
  waitpid(child, nullptr, 0);
  [[maybe_unused]] const int kept = writing.release();
  guard_started = true;
  return {};
}

Result<> prepare() {
  if (duties) return {};
  void* shared = mmap(nullptr, sizeof(Duties), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return os_fail("memory for the guard process");
  duties = new (shared) Duties{};
  duties->terminal = -1;
  owner = getpid();
  std::atexit([] {
    if (getpid() == owner) undo_all();
  });
  return {};
}

}  // namespace

void install_handlers() {
  signal(SIGPIPE, SIG_IGN);
  struct sigaction action{};
  action.sa_handler = on_fatal;
  action.sa_flags = SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  for (const int fatal : kFatal) sigaction(fatal, &action, nullptr);
}

Result<> keep_terminal(int fd, const termios& modes) {
  TRY(prepare());
  duties->modes = modes;
  duties->terminal = fd;
  return start_guard();
}

Result<> remove_at_end(const std::string& path) {
  TRY(prepare());
  const auto file = std::ranges::find_if(duties->files, [](const Duties::File& one) { return !one.kept; });
  if (file == duties->files.end()) return fail(ErrorKind::Usage, "{}: more than {} sockets", path, kMostFiles);
  if (path.size() >= sizeof file->path) return fail(ErrorKind::Usage, "{}: the path is too long", path);
  std::memcpy(file->path, path.c_str(), path.size() + 1);
  struct stat info{};
  const bool there = lstat(path.c_str(), &info) == 0;
  file->inode = there ? info.st_ino : 0;
  file->device = there ? info.st_dev : 0;
  file->kept = true;
  return start_guard();
}

void remove_now(const std::string& path) {
  if (!duties) return;
  for (Duties::File& file : duties->files)
    if (file.kept && path == file.path && file.kept.exchange(false) && is_the_one(file)) unlink(file.path);
}

void forget_after_fork() {
  duties = nullptr;
  guard_started = false;
}

void undo_all() {
  if (duties) undo(*duties);
}

}  // namespace lodge::console::cleanup
