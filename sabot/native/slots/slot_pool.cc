#include "sabot/native/slots/slot_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "sabot/native/slots/core.h"

namespace sabot::slots {
namespace {

/// How many forks lie between this process and the one that loaded the library. Asking the system for the process's id
/// instead would be a system call in each Submit. relaxed: a child has one thread when it counts.
std::atomic<int> forks_behind{0};

int ForksBehind() noexcept {
  static const int watched =
      pthread_atfork(nullptr, nullptr, [] { forks_behind.fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(watched);  // fails only without memory for one entry of a list
  return forks_behind.load(std::memory_order_relaxed);
}

class CorePool final : public SlotPool {
 public:
  explicit CorePool(const Options& options) : core_(std::make_shared<Core>(options)) {}
  // In a fork's child the threads that own the core too do not exist: it is left as it is.
  ~CorePool() override {
    if (!forked()) core_->Shutdown(/*drain=*/false, std::chrono::steady_clock::time_point::max());
  }

  Outcome Submit(std::shared_ptr<Run> run, const JobShare& share) override {
    return forked() ? Outcome::kForked : core_->Submit(std::move(run), share);
  }
  void Cancel(const std::shared_ptr<Run>& run) override {
    if (!forked() && run) core_->Cancel(*run);
  }
  void Widen(const std::shared_ptr<Run>& run) override {
    if (!forked() && run) core_->Widen(run);
  }
  Outcome AddSlots(int count) override { return forked() ? Outcome::kForked : core_->AddSlots(count); }
  Outcome RemoveSlots(int count) override { return forked() ? Outcome::kForked : core_->RemoveSlots(count); }
  Outcome Shutdown(bool drain, std::chrono::steady_clock::time_point deadline) override {
    if (forked()) return Outcome::kForked;
    if (on_slot_thread()) return Outcome::kInvalid;
    return core_->Shutdown(drain, deadline);
  }

  int num_slots() const override { return forked() ? 0 : static_cast<int>(core_->slots().size()); }
  int available_slots_approx() const override {
    if (forked()) return 0;
    const Core::Slots slots = core_->slots();
    return static_cast<int>(std::count_if(slots.begin(), slots.end(), [](const auto& s) { return !s->busy(); }));
  }
  int64_t queue_depth_approx() const override { return forked() ? 0 : core_->items_waiting(); }
  int parked_slots_approx() const override { return core_->parked_approx(); }
  std::vector<SlotStats> stats() const override {
    std::vector<SlotStats> stats;
    if (forked()) return stats;
    for (const auto& slot : core_->slots()) stats.push_back(slot->stats());
    return stats;
  }
  Logbook& logbook() override { return core_->logbook(); }
  bool on_slot_thread() const override { return Core::Here() == core_.get(); }
  bool forked() const noexcept override { return forks_behind.load(std::memory_order_relaxed) != forks_behind_; }

 private:
  const int forks_behind_ = ForksBehind();
  const std::shared_ptr<Core> core_;
};

}  // namespace

std::unique_ptr<SlotPool> SlotPool::Make(Options options) {
  if (options.num_slots < 0 || options.num_slots > kSlotsMax) return nullptr;
  if (!MpmcQueue<Ticket>::CapacityIsValid(options.queue_capacity)) return nullptr;
  int slots = options.num_slots;
  if (slots == 0) slots = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kSlotsMax);
  auto pool = std::make_unique<CorePool>(options);
  if (pool->AddSlots(slots) != Outcome::kAccepted) return nullptr;
  return pool;
}

}  // namespace sabot::slots
