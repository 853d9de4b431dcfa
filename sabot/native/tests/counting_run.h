// A Run that counts what happens to each of its items, and the pools that the slot pool's tests run it in.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "sabot/native/slots/slot_pool.h"

namespace sabot::slots {

using Body = std::function<void(size_t index, int slot_id)>;

class CountingRun final : public Run {
 public:
  explicit CountingRun(size_t items, Body body = {}, Source source = Source::kLocal)
      : body_(std::move(body)), source_(source), ran_(items), skipped_(items) {}

  size_t item_count() const noexcept override { return ran_.size(); }
  Source source_of(size_t) const noexcept override { return source_; }
  void RunItem(size_t index, int slot_id, int64_t queue_us) noexcept override {
    if (queue_us < 0) negative_wait_.store(true);
    if (body_) body_(index, slot_id);
    ran_[index].fetch_add(1);
    if (fail_at_ == static_cast<int64_t>(index)) SkipRest();
  }
  bool starts_narrow() const noexcept override { return narrow; }
  bool queued_in_slots() const noexcept override { return queued; }
  void ItemCounted(size_t index) noexcept override {
    if (on_counted) on_counted(index);
  }
  void SkipItem(size_t index) noexcept override { skipped_[index].fetch_add(1); }
  void Finished() noexcept override {
    if (on_finished) on_finished();
    finished_.fetch_add(1);
    finished_.notify_all();
  }

  void FailAt(int64_t index) { fail_at_ = index; }
  void Wait() const { finished_.wait(0); }
  int finished() const { return finished_.load(); }
  size_t ran() const { return Sum(ran_); }
  size_t skipped() const { return Sum(skipped_); }
  /// Waits for the end; true when every item was run or skipped, once, and the end came once.
  bool EndedOnce() const {
    Wait();
    for (size_t i = 0; i < ran_.size(); ++i) {
      if (ran_[i].load() + skipped_[i].load() != 1) return false;
    }
    return finished_.load() == 1 && !negative_wait_.load();
  }

  std::function<void()> on_finished;
  std::function<void(size_t)> on_counted;
  bool narrow = false;
  bool queued = false;

 private:
  static size_t Sum(const std::vector<std::atomic<int>>& counts) {
    size_t sum = 0;
    for (const auto& count : counts) sum += count.load();
    return sum;
  }

  Body body_;
  const Source source_;
  int64_t fail_at_ = -1;
  std::vector<std::atomic<int>> ran_;
  std::vector<std::atomic<int>> skipped_;
  std::atomic<int> finished_{0};
  std::atomic<bool> negative_wait_{false};
};

inline std::shared_ptr<CountingRun> MakeRun(size_t items, Body body = {}, Source source = Source::kLocal) {
  return std::make_shared<CountingRun>(items, std::move(body), source);
}

inline std::shared_ptr<SlotPool> MakePool(int slots, size_t capacity = 4096) {
  return SlotPool::Make({.num_slots = slots, .queue_capacity = capacity});
}

inline void UntilAllParked(const SlotPool& pool) {
  while (pool.parked_slots_approx() < pool.num_slots()) std::this_thread::yield();
}

inline int64_t Processed(const SlotPool& pool) {
  int64_t sum = 0;
  for (const SlotStats& slot : pool.stats()) sum += slot.morsels_processed;
  return sum;
}

}  // namespace sabot::slots
