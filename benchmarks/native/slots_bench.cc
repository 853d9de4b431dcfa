// Times the native scheduler next to its peers, alternately in one process: the ring against moodycamel's queue and a
// deque under a mutex, items that do nothing through the pool against oneTBB's task_group, and how long a parked slot
// takes to wake. One line per fact: `name<tab>value unit`; `name<tab>missing reason` where a peer is not installed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sabot/native/slots/mpmc_queue.h"
#include "sabot/native/slots/slot_pool.h"

#ifdef SABOT_HAVE_TBB
#include <tbb/global_control.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>
#endif
#ifdef SABOT_HAVE_CONCURRENTQUEUE
#include <concurrentqueue/concurrentqueue.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
using sabot::slots::MpmcQueue;
using sabot::slots::Run;
using sabot::slots::SlotPool;
using sabot::slots::Source;

double NanosecondsOf(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

/// Medians of cases that were run in turn, so that all see the same machine.
class Table {
 public:
  void Add(const std::string& name, double value) { values_[name].push_back(value); }
  void Print(const char* unit) {
    for (auto& [name, values] : values_) {
      std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
      std::printf("%s\t%.1f %s\n", name.c_str(), values[values.size() / 2], unit);
    }
    values_.clear();
  }

 private:
  std::map<std::string, std::vector<double>> values_;
};

std::string Suffix(int threads) { return std::string(1, '/').append(std::to_string(threads)); }

struct Ring {
  MpmcQueue<uint64_t> queue{1024};
  bool Push(uint64_t value) { return queue.TryPush(value); }
  bool Pop(uint64_t* value) { return queue.TryPop(value); }
};

struct LockedDeque {
  std::mutex mutex;
  std::deque<uint64_t> deque;
  bool Push(uint64_t value) {
    std::lock_guard lock(mutex);
    deque.push_back(value);
    return true;
  }
  bool Pop(uint64_t* value) {
    std::lock_guard lock(mutex);
    if (deque.empty()) return false;
    *value = deque.front();
    deque.pop_front();
    return true;
  }
};

#ifdef SABOT_HAVE_CONCURRENTQUEUE
struct Moodycamel {
  moodycamel::ConcurrentQueue<uint64_t> queue;
  bool Push(uint64_t value) { return queue.enqueue(value); }
  bool Pop(uint64_t* value) { return queue.try_dequeue(*value); }
};
#endif

/// Each of `threads` pushes and pops in turn; nanoseconds of wall time per push and pop.
template <typename Queue>
double PushPop(int threads, int each) {
  Queue queue;
  std::atomic<int> ready{0};
  const auto work = [&] {
    ready.fetch_add(1);
    while (ready.load() < threads) std::this_thread::yield();
    uint64_t value = 0;
    for (int i = 0; i < each; ++i) {
      while (!queue.Push(i)) std::this_thread::yield();
      while (!queue.Pop(&value)) std::this_thread::yield();
    }
  };
  const double ns = NanosecondsOf([&] {
    std::vector<std::jthread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work);
    work();
  });
  return ns / each / threads;
}

class Nothing final : public Run {
 public:
  explicit Nothing(size_t items) : items_(items) {}
  size_t item_count() const noexcept override { return items_; }
  Source source_of(size_t) const noexcept override { return Source::kLocal; }
  void RunItem(size_t, int, int64_t) noexcept override {}
  void SkipItem(size_t) noexcept override {}
  void Finished() noexcept override {
    finished_.store(true, std::memory_order_release);
    finished_.notify_one();
  }
  void Wait() { finished_.wait(false, std::memory_order_acquire); }

 private:
  const size_t items_;
  std::atomic<bool> finished_{false};
};

void Queues(int rounds) {
  constexpr int kEach = 300'000;
  Table table;
  for (int round = 0; round < rounds; ++round) {
    for (int threads = 1; threads <= 4; ++threads) {
      const std::string suffix = Suffix(threads);
      table.Add("queue/ring" + suffix, PushPop<Ring>(threads, kEach));
      table.Add("queue/mutex+deque" + suffix, PushPop<LockedDeque>(threads, kEach));
#ifdef SABOT_HAVE_CONCURRENTQUEUE
      table.Add("queue/moodycamel" + suffix, PushPop<Moodycamel>(threads, kEach));
#endif
    }
  }
  table.Print("ns");
#ifndef SABOT_HAVE_CONCURRENTQUEUE
  std::puts("queue/moodycamel\tmissing Debian: apt-get install libconcurrentqueue-dev");
#endif
}

void Items(int rounds) {
  constexpr int kItems = 20'000;
  Table table;
  for (const int slots : {1, 2}) {
    const auto pool = SlotPool::Make({.num_slots = slots});
    const std::string suffix = Suffix(slots);
    for (int round = 0; round < rounds; ++round) {
      table.Add("item/one run" + suffix, NanosecondsOf([&] {
                                           auto run = std::make_shared<Nothing>(kItems);
                                           pool->Submit(run);
                                           run->Wait();
                                         }) / kItems);
      table.Add("item/a run each" + suffix, NanosecondsOf([&] {
                                              std::vector<std::shared_ptr<Nothing>> runs;
                                              runs.reserve(kItems);
                                              for (int i = 0; i < kItems; ++i) {
                                                runs.push_back(std::make_shared<Nothing>(1));
                                                pool->Submit(runs.back());
                                              }
                                              for (auto& run : runs) run->Wait();
                                            }) / kItems);
#ifdef SABOT_HAVE_TBB
      // One thread more than slots: the caller's, which oneTBB counts.
      const tbb::global_control parallelism(tbb::global_control::max_allowed_parallelism, slots + 1);
      tbb::task_arena arena(slots);
      table.Add("item/oneTBB task_group" + suffix, NanosecondsOf([&] {
                                                     arena.execute([&] {
                                                       tbb::task_group group;
                                                       for (int i = 0; i < kItems; ++i) group.run([] {});
                                                       group.wait();
                                                     });
                                                   }) / kItems);
      // As a Run comes: by a thread that is none of the arena's, which then waits.
      tbb::task_arena workers(slots, /*reserved_for_masters=*/0);
      table.Add("item/oneTBB from outside" + suffix, NanosecondsOf([&] {
                                                       tbb::task_group group;
                                                       for (int i = 0; i < kItems; ++i)
                                                         workers.enqueue(group.defer([] {}));
                                                       workers.execute([&] { group.wait(); });
                                                     }) / kItems);
#endif
    }
  }
  table.Print("ns");
#ifndef SABOT_HAVE_TBB
  std::puts("item/oneTBB\tmissing Debian: apt-get install libtbb-dev");
#endif
}

class Stamp final : public Run {
 public:
  size_t item_count() const noexcept override { return 1; }
  Source source_of(size_t) const noexcept override { return Source::kLocal; }
  void RunItem(size_t, int, int64_t) noexcept override { at.store(Clock::now().time_since_epoch().count()); }
  void SkipItem(size_t) noexcept override {}
  void Finished() noexcept override { at.notify_one(); }

  std::atomic<int64_t> at{0};
};

void WakeUps(int rounds) {
  const auto pool = SlotPool::Make({.num_slots = 16});
  Table table;
  for (int round = 0; round < rounds * 20; ++round) {
    while (pool->parked_slots_approx() < 16) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // the last to park is asleep by now
    auto run = std::make_shared<Stamp>();
    const auto start = Clock::now();
    pool->Submit(run);
    run->at.wait(0);
    table.Add("wake-up of a parked slot", static_cast<double>(run->at.load() - start.time_since_epoch().count()));
  }
  table.Print("ns");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 11;
  Queues(rounds);
  Items(rounds);
  WakeUps(rounds);
}
