// What a slot's records cost a morsel: the same items through one slot that keeps no record, histograms, or histograms
// and the timeline, in turn in one process. One line per fact: `name<tab>value unit`. Differences are medians of pairs
// that were measured within some milliseconds of each other, since the machine's speed varies more than they do.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/slots/item_note.h"
#include "sabot/native/slots/slot_pool.h"

namespace {

using Clock = std::chrono::steady_clock;
using sabot::slots::ItemNames;
using sabot::slots::ItemNote;
using sabot::slots::NoteScope;
using sabot::slots::Run;
using sabot::slots::SlotPool;
using sabot::slots::Source;

constexpr size_t kItems = 2'000;

/// Items that read `memory` and fill in their notes as morsels do. Tells the time from the first one's start to the
/// last one's, so that neither the wake-up of the slot nor that of the caller is in it.
class Sweeps final : public Run {
 public:
  Sweeps(const std::vector<uint64_t>& memory, ItemNames names) : memory_(memory), names_(names) {}

  size_t item_count() const noexcept override { return kItems; }
  Source source_of(size_t) const noexcept override { return Source::kLocal; }
  void RunItem(size_t item, int, int64_t) noexcept override {
    if (item == 0) first_ = Clock::now();
    if (item + 1 == kItems) last_ = Clock::now();
    sum_ = std::accumulate(memory_.begin(), memory_.end(), sum_);
    *NoteScope::Here() = {names_, static_cast<int64_t>(item), 1000, static_cast<int64_t>(sum_ & 0xFFFF), 0};
  }
  void SkipItem(size_t) noexcept override {}
  void Finished() noexcept override {
    finished_.store(true, std::memory_order_release);
    finished_.notify_one();
  }

  double ItemNs() {
    finished_.wait(false, std::memory_order_acquire);
    return std::chrono::duration<double, std::nano>(last_ - first_).count() / (kItems - 1);
  }

 private:
  const std::vector<uint64_t>& memory_;
  const ItemNames names_;
  uint64_t sum_ = 0;
  Clock::time_point first_;
  Clock::time_point last_;
  std::atomic<bool> finished_{false};
};

double Quantile(std::vector<double> values, double part) {
  const auto nth = values.begin() + static_cast<int64_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

void PrintDifference(const std::string& name, const std::vector<double>& with, const std::vector<double>& without) {
  std::vector<double> pairs;
  for (size_t i = 0; i < with.size(); ++i) pairs.push_back(with[i] - without[i]);
  std::printf("%s\t%.1f ns (quartiles %.1f to %.1f)\n", name.c_str(), Quantile(pairs, 0.5), Quantile(pairs, 0.25),
              Quantile(pairs, 0.75));
}

void Measure(int rounds, size_t kib, std::mt19937& random) {
  const std::vector<uint64_t> memory(kib * 1024 / sizeof(uint64_t), 3);
  const auto silent = SlotPool::Make({.num_slots = 1, .timeline_morsels = 0});
  const auto recording = SlotPool::Make({.num_slots = 1, .timeline_morsels = 4096});
  const std::array<std::pair<SlotPool*, ItemNames>, 3> cases = {
      {{silent.get(), {}},
       {silent.get(), silent->logbook().Name("job", "operator")},
       {recording.get(), recording->logbook().Name("job", "operator")}}};
  std::array<std::vector<double>, 3> ns;
  std::array<size_t, 3> order = {0, 1, 2};
  for (int round = -rounds / 10; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t which : order) {
      auto run = std::make_shared<Sweeps>(memory, cases[which].second);
      cases[which].first->Submit(run);
      const double took = run->ItemNs();
      if (round >= 0) ns[which].push_back(took);  // the first tenth warms up
    }
  }
  const std::string what = "an item that reads " + std::to_string(kib) + " KiB";
  std::printf("%s, without a record\t%.1f ns\n", what.c_str(), Quantile(ns[0], 0.5));
  PrintDifference("  histograms", ns[1], ns[0]);
  PrintDifference("  timeline", ns[2], ns[1]);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  std::mt19937 random(argc > 2 ? static_cast<uint32_t>(std::strtoul(argv[2], nullptr, 10)) : std::random_device{}());
  for (const size_t kib : {0, 16, 256}) Measure(rounds, kib, random);
}
