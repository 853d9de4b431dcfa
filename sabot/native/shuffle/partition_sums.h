// Rows and content sums by partition, kept small: there may be thousands of partitions for each of thousands of
// attempts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sabot/native/rows/partitioner.h"

namespace sabot::shuffle {

/// Rows of a partition and the wrapping sum over them.
struct PartitionSum {
  int64_t rows = 0;
  uint64_t content_sum = 0;

  void Add(int64_t more_rows, uint64_t more_sum) {
    // Unsigned: a manifest's numbers are a stranger's, and may add up to anything.
    rows = static_cast<int64_t>(static_cast<uint64_t>(rows) + static_cast<uint64_t>(more_rows));
    content_sum += more_sum;
  }
  bool operator==(const PartitionSum&) const = default;
};

/// A sum with the bytes of the rows (rows/row_bytes.h). Manifests are without: owners keep a sum for each attempt.
struct PartitionCount {
  PartitionSum sum;
  int64_t bytes = 0;

  void Add(int64_t more_rows, uint64_t more_sum, int64_t more_bytes) {
    sum.Add(more_rows, more_sum);
    bytes += more_bytes;
  }
};

/// A map from partition to sum, as one sorted vector.
class PartitionSums {
 public:
  struct Entry {
    int32_t partition;
    PartitionSum sum;
  };

  void Add(const std::vector<rows::Extent>& extents) {
    const auto had = static_cast<std::ptrdiff_t>(entries_.size());
    for (const rows::Extent& extent : extents) {
      entries_.push_back({extent.partition, {extent.rows, extent.content_sum}});
    }
    std::stable_sort(entries_.begin() + had, entries_.end(), Before);
    std::inplace_merge(entries_.begin(), entries_.begin() + had, entries_.end(), Before);
    size_t last = 0;
    for (size_t i = 1; i < entries_.size(); ++i) {
      if (entries_[i].partition == entries_[last].partition) {
        entries_[last].sum.Add(entries_[i].sum.rows, entries_[i].sum.content_sum);
      } else {
        entries_[++last] = entries_[i];
      }
    }
    entries_.resize(entries_.empty() ? 0 : last + 1);
  }

  /// Null where nothing was added for `partition`.
  const PartitionSum* Find(int32_t partition) const {
    const auto found = std::lower_bound(entries_.begin(), entries_.end(), Entry{partition, {}}, Before);
    return found != entries_.end() && found->partition == partition ? &found->sum : nullptr;
  }

  void ShrinkToFit() { entries_.shrink_to_fit(); }
  int64_t bytes() const { return static_cast<int64_t>(entries_.capacity() * sizeof(Entry)); }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  static bool Before(const Entry& left, const Entry& right) { return left.partition < right.partition; }

  std::vector<Entry> entries_;
};

}  // namespace sabot::shuffle
