// Whoever steers the process from outside, by signals or the control socket, steers the machine that runs now, over all resets.
//
// Threads: main thread; quit() and quitting() also from the loop's posted work.
#pragma once

#include <functional>

#include "console/shared_line.hpp"
#include "machine/config.hpp"
#include "machine/machine.hpp"
#include "monitor/target.hpp"

namespace lodge::machine {

class Steering final : public monitor::Target {
 public:
  Steering(const Config& config, std::string name, std::string engine, display::Seat& seat)
      : config_(config), name_(std::move(name)), engine_(std::move(engine)), seat_(seat) {}

  // Null: none runs. One that comes while the person has paused is paused from the start.
  void set_machine(Machine* machine);
  [[nodiscard]] Machine* machine() const { return machine_; }
  // The drives, once they are open.
  void set_peripherals(const Peripherals* peripherals) { peripherals_ = peripherals; }
  void set_console(console::SharedLine* line) { console_ = line; }
  void set_display(std::string where) { display_ = std::move(where); }
  // What is said to those who listen: an event's name in QMP.
  void on_event(std::function<void(const char*)> tell) { tell_ = std::move(tell); }
  void announce(const char* event) const {
    if (tell_) tell_(event);
  }
  [[nodiscard]] bool quitting() const { return quit_; }

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] bool paused() const override { return paused_; }
  [[nodiscard]] uint64_t memory_bytes() const override { return config_.memory; }
  [[nodiscard]] uint32_t processors() const override { return config_.vcpus; }
  [[nodiscard]] std::string engine() const override { return engine_; }
  [[nodiscard]] std::string display() const override { return display_; }
  void pause() override;
  void resume() override;
  void press_power_button() override;
  void reset() override;
  void quit() override;
  [[nodiscard]] std::vector<monitor::Tray> trays() const override;
  [[nodiscard]] Result<> eject(const std::string& drive, bool force) override;
  [[nodiscard]] Result<> insert(const std::string& drive, const std::string& file, bool force) override;
  [[nodiscard]] Result<> attach_console(Fd peer) override;
  [[nodiscard]] display::Seat& seat() override { return seat_; }

 private:
  [[nodiscard]] Result<Drive*> removable(const std::string& name) const;
  // The same, whose medium no controller uses any more; refused where the guest has locked it in.
  [[nodiscard]] Result<Drive*> unload(const std::string& name, bool force);
  // All of them with their names.
  [[nodiscard]] std::vector<std::pair<std::string, Drive*>> removables() const;
  const Config& config_;
  const std::string name_, engine_;
  std::string display_;
  display::Seat& seat_;
  std::function<void(const char*)> tell_;
  const Peripherals* peripherals_ = nullptr;
  console::SharedLine* console_ = nullptr;
  Machine* machine_ = nullptr;
  bool paused_ = false, quit_ = false;
};

}  // namespace lodge::machine
