// The scalar functions of the hash contract, and the hash of a span of values that the rows' own sources share.
#pragma once

#include <arrow/array/data.h>
#include <arrow/status.h>

#include <bit>
#include <cstdint>
#include <cstring>

namespace sabot::rows {

static_assert(std::endian::native == std::endian::little,
              "the hash and checksum contracts read Arrow's little-endian buffers");

constexpr uint64_t kNullHash = 0xD1B54A32D192ED03;

/// The first output of splitmix64 seeded with `x`: a bijection of 64 bits.
constexpr uint64_t SplitMix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

constexpr uint64_t MixHashes(uint64_t first, uint64_t second) { return SplitMix(std::rotl(first, 29) + second); }

/// What a row adds to the content sum. Odd times the key hash, values of one key stay as far apart as they were; the
/// key hash's upper half beside the product tells keys apart under the few values whose hash leaves the product little.
constexpr uint64_t BindHashes(uint64_t key_hash, uint64_t value_hash) {
  return (key_hash >> 32) + (key_hash | 1) * value_hash;
}

/// The upper half of the 128-bit product keeps the order of the re-mixed hash, so no division and no need of good low
/// bits.
inline int32_t PartitionOfHash(uint64_t key_hash, int32_t num_partitions) {
  const auto product = static_cast<unsigned __int128>(SplitMix(key_hash)) * static_cast<uint32_t>(num_partitions);
  return static_cast<int32_t>(static_cast<uint64_t>(product >> 64));
}

/// The re-mixed key hashes of one partition of [0, num_partitions), from first to last: comparing takes less than the
/// product of each row.
struct PartitionBounds {
  uint64_t first;
  uint64_t last;

  PartitionBounds(int32_t partition, int32_t num_partitions) {
    const auto begin = [&](int32_t of) {
      const auto parts = static_cast<unsigned __int128>(num_partitions);
      return ((static_cast<unsigned __int128>(of) << 64) + parts - 1) / parts;
    };
    first = static_cast<uint64_t>(begin(partition));
    last = static_cast<uint64_t>(begin(partition + 1) - 1);
  }
  bool Have(uint64_t key_hash) const { return SplitMix(key_hash) - first <= last - first; }
};

/// Value `index` of a buffer that need not be aligned (a message on the wire gives no such promise).
template <typename T>
T LoadAt(const uint8_t* buffer, int64_t index) {
  T value;
  std::memcpy(&value, buffer + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

/// Writes the hash of every value of `values` to `out`; nulls get kNullHash.
arrow::Status HashSpan(const arrow::ArraySpan& values, uint64_t* out);

/// As HashSpan, for list, map, list view and struct types.
arrow::Status HashNestedSpan(const arrow::ArraySpan& values, uint64_t* out);

/// Whether hashing `type` costs work per call that its slices would repeat (a dictionary somewhere in it).
bool HasDictionary(const arrow::DataType& type);

}  // namespace sabot::rows
