#include "sabot/native/operators/key_numbers.h"

#include <arrow/buffer_builder.h>
#include <arrow/util/bit_util.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

namespace sabot::operators {

namespace {

constexpr int64_t kBlockRows = 1024;  // whose slots are fetched into the cache before any of them is looked at
constexpr int64_t kAheadRows = 16;    // the same for the keys to which the slots point
constexpr int64_t kSlotsMin = 4 * kBlockRows;
constexpr int64_t kKeysMax = std::numeric_limits<uint32_t>::max() - kBlockRows;

uint64_t HashOf(uint64_t key) {
  key = (key ^ (key >> 32)) * 0xd6e8feb86659fd93;
  key = (key ^ (key >> 32)) * 0xd6e8feb86659fd93;
  return key ^ (key >> 32);
}

/// A hash table of numbers, open addressing, at most half full. The keys themselves lie beside it in their order.
template <typename Key>
class HashedKeys final : public KeyNumbers {
 public:
  HashedKeys(std::shared_ptr<arrow::DataType> type, arrow::MemoryPool* pool)
      : type_(std::move(type)), pool_(pool), keys_(pool) {}

  arrow::Status Number(const arrow::ArrayData& keys, uint32_t* numbers) override {
    const auto* values = keys.GetValues<Key>(1);
    const uint8_t* valid = keys.GetNullCount() == 0 ? nullptr : keys.buffers[0]->data();
    for (int64_t start = 0; start < keys.length; start += kBlockRows) {
      ARROW_RETURN_NOT_OK(MakeRoom());
      const int64_t rows = std::min(kBlockRows, keys.length - start);
      if (valid == nullptr) {
        NumberBlock(values + start, rows, numbers + start);
      } else {
        NumberSparse(values + start, rows, valid, keys.offset + start, numbers + start);
      }
    }
    return arrow::Status::OK();
  }

  void Find(const arrow::ArrayData& keys, uint32_t* numbers) const override {
    const auto* values = keys.GetValues<Key>(1);
    const uint8_t* valid = keys.GetNullCount() == 0 ? nullptr : keys.buffers[0]->data();
    if (slots_ == nullptr) {
      std::fill_n(numbers, keys.length, kNoNumber);
      return;
    }
    const uint32_t* slots = slots_->data_as<uint32_t>();
    for (int64_t start = 0; start < keys.length; start += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, keys.length - start);
      Slots at;
      Prefetch(values + start, rows, &at);
      for (int64_t row = start; row < start + rows; ++row) {
        PrefetchKey(at, row - start, rows);
        if (valid != nullptr && !arrow::bit_util::GetBit(valid, keys.offset + row)) {
          numbers[row] = kNoNumber;
          continue;
        }
        const uint64_t slot = SlotOf(values[row], at[row - start]);
        numbers[row] = slots[slot] == 0 ? kNoNumber : slots[slot] - 1;
      }
    }
  }

  int64_t count() const override { return keys_.length(); }

  arrow::Result<std::shared_ptr<arrow::ArrayData>> Finish() override {
    const int64_t count = keys_.length();
    std::shared_ptr<arrow::Buffer> validity;
    if (null_number_ >= 0) {
      ARROW_ASSIGN_OR_RAISE(validity, arrow::AllocateBitmap(count, pool_));
      arrow::bit_util::SetBitsTo(validity->mutable_data(), 0, count, true);
      arrow::bit_util::ClearBit(validity->mutable_data(), null_number_);
    }
    ARROW_ASSIGN_OR_RAISE(auto keys, keys_.Finish());
    return arrow::ArrayData::Make(type_, count, {std::move(validity), std::move(keys)});
  }

 private:
  using Slots = std::array<uint64_t, kBlockRows>;

  void Prefetch(const Key* values, int64_t rows, Slots* at) const {
    const uint32_t* slots = slots_->data_as<uint32_t>();
    for (int64_t row = 0; row < rows; ++row) {
      (*at)[row] = HashOf(values[row]) & mask_;
      __builtin_prefetch(slots + (*at)[row]);
    }
  }

  void PrefetchKey(const Slots& at, int64_t row, int64_t rows) const {
    if (row + kAheadRows < rows) __builtin_prefetch(keys_.data() + slots_->data_as<uint32_t>()[at[row + kAheadRows]]);
  }

  /// The slot of `value`, or the empty one where it belongs; `slot` is where to begin.
  uint64_t SlotOf(Key value, uint64_t slot) const {
    const uint32_t* slots = slots_->data_as<uint32_t>();
    const Key* keys = keys_.data();
    while (slots[slot] != 0 && keys[slots[slot] - 1] != value) slot = (slot + 1) & mask_;
    return slot;
  }

  void NumberBlock(const Key* values, int64_t rows, uint32_t* numbers) {
    Slots at;
    Prefetch(values, rows, &at);
    for (int64_t row = 0; row < rows; ++row) {
      PrefetchKey(at, row, rows);
      // Equal keys often lie side by side.
      numbers[row] = row > 0 && values[row] == values[row - 1] ? numbers[row - 1] : NumberOf(values[row], at[row]);
    }
  }

  void NumberSparse(const Key* values, int64_t rows, const uint8_t* valid, int64_t offset, uint32_t* numbers) {
    for (int64_t row = 0; row < rows; ++row) {
      if (arrow::bit_util::GetBit(valid, offset + row)) {
        numbers[row] = NumberOf(values[row], HashOf(values[row]) & mask_);
        continue;
      }
      if (null_number_ < 0) {
        null_number_ = keys_.length();
        keys_.UnsafeAppend(Key{0});
      }
      numbers[row] = static_cast<uint32_t>(null_number_);
    }
  }

  uint32_t NumberOf(Key value, uint64_t slot) {
    auto* slots = slots_->mutable_data_as<uint32_t>();
    slot = SlotOf(value, slot);
    if (slots[slot] == 0) {
      keys_.UnsafeAppend(value);
      slots[slot] = static_cast<uint32_t>(keys_.length());
    }
    return slots[slot] - 1;
  }

  /// For the keys of one more block.
  arrow::Status MakeRoom() {
    ARROW_RETURN_NOT_OK(keys_.Reserve(kBlockRows));
    const int64_t count = keys_.length();
    const int64_t had = slots_ == nullptr ? 0 : slots_->size() / static_cast<int64_t>(sizeof(uint32_t));
    if (2 * (count + kBlockRows) <= had) return arrow::Status::OK();
    if (count > kKeysMax) return arrow::Status::CapacityError("a partition has more than 4 billion different keys");
    const int64_t wanted = std::max(kSlotsMin, 4 * had);
    ARROW_ASSIGN_OR_RAISE(slots_, arrow::AllocateBuffer(wanted * static_cast<int64_t>(sizeof(uint32_t)), pool_));
    std::memset(slots_->mutable_data(), 0, static_cast<size_t>(slots_->size()));
    mask_ = static_cast<uint64_t>(wanted) - 1;
    auto* slots = slots_->mutable_data_as<uint32_t>();
    for (int64_t number = 0; number < count; ++number) {
      if (number == null_number_) continue;
      uint64_t slot = HashOf(keys_.data()[number]) & mask_;
      while (slots[slot] != 0) slot = (slot + 1) & mask_;
      slots[slot] = static_cast<uint32_t>(number + 1);
    }
    return arrow::Status::OK();
  }

  const std::shared_ptr<arrow::DataType> type_;
  arrow::MemoryPool* const pool_;
  arrow::TypedBufferBuilder<Key> keys_;
  std::unique_ptr<arrow::Buffer> slots_;  // of uint32: a number plus one, or 0
  uint64_t mask_ = 0;
  int64_t null_number_ = -1;
};

}  // namespace

std::unique_ptr<KeyNumbers> KeyNumbers::Make(const std::shared_ptr<arrow::DataType>& type, arrow::MemoryPool* pool) {
  switch (type->id()) {
    case arrow::Type::INT32:
    case arrow::Type::UINT32:
    case arrow::Type::DATE32:
    case arrow::Type::TIME32:
      return std::make_unique<HashedKeys<uint32_t>>(type, pool);
    case arrow::Type::INT64:
    case arrow::Type::UINT64:
    case arrow::Type::DATE64:
    case arrow::Type::TIME64:
    case arrow::Type::TIMESTAMP:
    case arrow::Type::DURATION:
      return std::make_unique<HashedKeys<uint64_t>>(type, pool);
    default:
      return nullptr;
  }
}

}  // namespace sabot::operators
