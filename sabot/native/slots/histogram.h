// How long things took, in buckets of a fixed logarithmic scale.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sabot::slots {

/// Bucket i counts times below 2^i * 1024 ns that are in no earlier one; the last has no bound (4.4 s and above).
struct HistogramCounts {
  static constexpr size_t kBuckets = 24;
  static constexpr int64_t BoundNs(size_t bucket) noexcept { return int64_t{1024} << bucket; }
  static constexpr size_t BucketOf(int64_t ns) noexcept {
    const auto kibins = static_cast<uint64_t>(std::max<int64_t>(ns, 0)) / 1024;
    return std::min<size_t>(std::bit_width(kibins), kBuckets - 1);
  }

  std::array<int64_t, kBuckets> counts{};
  int64_t sum_ns = 0;
};
static_assert(HistogramCounts::BucketOf(1023) == 0 && HistogramCounts::BucketOf(1024) == 1);
static_assert(HistogramCounts::BucketOf(2047) == 1 && HistogramCounts::BucketOf(2048) == 2);

/// One thread writes, any reads. Each number is right by itself; release and acquire let OperatorLog tell the counts of
/// one operator from those of the next.
class Histogram {
 public:
  void Add(int64_t ns) noexcept {
    Increase(counts_[HistogramCounts::BucketOf(ns)], 1);
    Increase(sum_ns_, ns);
  }
  void Clear() noexcept {
    for (auto& count : counts_) count.store(0, std::memory_order_release);  // release: partner of the acquires in AddTo
    sum_ns_.store(0, std::memory_order_release);                            // release: the same
  }
  void AddTo(HistogramCounts* total) const noexcept {
    // acquire: partner of the releases in Clear and Increase.
    for (size_t i = 0; i < counts_.size(); ++i) total->counts[i] += counts_[i].load(std::memory_order_acquire);
    total->sum_ns += sum_ns_.load(std::memory_order_acquire);
  }

 private:
  static void Increase(std::atomic<int64_t>& number, int64_t by) noexcept {
    // relaxed: its own thread's; release: partner of the acquires in AddTo.
    number.store(number.load(std::memory_order_relaxed) + by, std::memory_order_release);
  }

  std::array<std::atomic<int64_t>, HistogramCounts::kBuckets> counts_{};
  std::atomic<int64_t> sum_ns_{0};
};

}  // namespace sabot::slots
