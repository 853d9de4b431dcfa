#include "sabot/native/operators/group_folds.h"

#include <arrow/array/array_base.h>
#include <arrow/buffer_builder.h>
#include <arrow/type_traits.h>
#include <arrow/util/bit_util.h>

#include <type_traits>

namespace sabot::operators {

namespace {

const uint8_t* ValidityOf(const arrow::ArrayData& values) {
  return values.GetNullCount() == 0 ? nullptr : values.buffers[0]->data();
}

class Count final : public GroupFold {
 public:
  explicit Count(arrow::MemoryPool* pool) : counts_(pool) {}

  arrow::Status Grow(int64_t groups) override { return counts_.Append(groups - counts_.length(), 0); }

  arrow::Status Add(const arrow::ArrayData* values, const uint32_t* numbers, int64_t rows) override {
    int64_t* counts = counts_.mutable_data();
    const uint8_t* valid = values == nullptr ? nullptr : ValidityOf(*values);
    for (int64_t row = 0; row < rows; ++row) {
      counts[numbers[row]] += valid == nullptr || arrow::bit_util::GetBit(valid, values->offset + row) ? 1 : 0;
    }
    return arrow::Status::OK();
  }

  arrow::Result<std::shared_ptr<arrow::ArrayData>> Finish() override {
    const int64_t groups = counts_.length();
    ARROW_ASSIGN_OR_RAISE(auto counts, counts_.Finish());
    return arrow::ArrayData::Make(arrow::int64(), groups, {nullptr, std::move(counts)}, 0);
  }

 private:
  arrow::TypedBufferBuilder<int64_t> counts_;
};

/// `Total` is what sums of `Value` are made in: 64 bits, whole ones wrapping round.
template <typename Value, typename Total>
class Sum final : public GroupFold {
 public:
  Sum(std::shared_ptr<arrow::DataType> type, arrow::MemoryPool* pool)
      : type_(std::move(type)), pool_(pool), sums_(pool), seen_(pool) {}

  arrow::Status Grow(int64_t groups) override {
    grown_from_ = sums_.length();
    return sums_.Append(groups - sums_.length(), 0);
  }

  arrow::Status Add(const arrow::ArrayData* values, const uint32_t* numbers, int64_t rows) override {
    const uint8_t* valid = ValidityOf(*values);
    if (valid != nullptr && !nulls_) {
      nulls_ = true;
      ARROW_RETURN_NOT_OK(seen_.Append(grown_from_, 1));  // there was no null in any group before
    }
    if (nulls_) ARROW_RETURN_NOT_OK(seen_.Append(sums_.length() - seen_.length(), 0));
    const auto* given = values->GetValues<Value>(1);
    Total* sums = sums_.mutable_data();
    if (!nulls_) {
      for (int64_t row = 0; row < rows; ++row) sums[numbers[row]] += static_cast<Total>(given[row]);
      return arrow::Status::OK();
    }
    uint8_t* seen = seen_.mutable_data();
    for (int64_t row = 0; row < rows; ++row) {
      if (valid != nullptr && !arrow::bit_util::GetBit(valid, values->offset + row)) continue;
      sums[numbers[row]] += static_cast<Total>(given[row]);
      seen[numbers[row]] = 1;
    }
    return arrow::Status::OK();
  }

  arrow::Result<std::shared_ptr<arrow::ArrayData>> Finish() override {
    const int64_t groups = sums_.length();
    std::shared_ptr<arrow::Buffer> validity;
    if (nulls_) {
      ARROW_ASSIGN_OR_RAISE(validity, arrow::AllocateEmptyBitmap(groups, pool_));
      for (int64_t group = 0; group < groups; ++group) {
        if (seen_.data()[group] != 0) arrow::bit_util::SetBit(validity->mutable_data(), group);
      }
    }
    ARROW_ASSIGN_OR_RAISE(auto sums, sums_.Finish());
    return arrow::ArrayData::Make(type_, groups, {std::move(validity), std::move(sums)});
  }

 private:
  const std::shared_ptr<arrow::DataType> type_;
  arrow::MemoryPool* const pool_;
  arrow::TypedBufferBuilder<Total> sums_;
  arrow::TypedBufferBuilder<uint8_t> seen_;  // whether a group had any value, kept since the first null
  bool nulls_ = false;
  int64_t grown_from_ = 0;
};

template <typename Value>
std::unique_ptr<GroupFold> SumOf(arrow::MemoryPool* pool) {
  if constexpr (std::is_floating_point_v<Value>) {
    return std::make_unique<Sum<Value, double>>(arrow::float64(), pool);
  } else {
    // The same bits for both: what is signed is extended by its cast.
    return std::make_unique<Sum<Value, uint64_t>>(std::is_signed_v<Value> ? arrow::int64() : arrow::uint64(), pool);
  }
}

std::unique_ptr<GroupFold> MakeSum(const arrow::DataType& type, arrow::MemoryPool* pool) {
  switch (type.id()) {
    case arrow::Type::INT8:
      return SumOf<int8_t>(pool);
    case arrow::Type::INT16:
      return SumOf<int16_t>(pool);
    case arrow::Type::INT32:
      return SumOf<int32_t>(pool);
    case arrow::Type::INT64:
      return SumOf<int64_t>(pool);
    case arrow::Type::UINT8:
      return SumOf<uint8_t>(pool);
    case arrow::Type::UINT16:
      return SumOf<uint16_t>(pool);
    case arrow::Type::UINT32:
      return SumOf<uint32_t>(pool);
    case arrow::Type::UINT64:
      return SumOf<uint64_t>(pool);
    case arrow::Type::FLOAT:
      return SumOf<float>(pool);
    case arrow::Type::DOUBLE:
      return SumOf<double>(pool);
    default:
      return nullptr;
  }
}

/// Where a null is a cleared bit; in dictionaries, unions and runs it may be a value, too.
bool HasNullBits(const arrow::DataType& type) {
  return arrow::is_primitive(type.id()) || arrow::is_base_binary_like(type.id());
}

}  // namespace

std::unique_ptr<GroupFold> GroupFold::Make(const std::string& function, const arrow::DataType* type,
                                           arrow::MemoryPool* pool) {
  if (function == "count_all") return type == nullptr ? std::make_unique<Count>(pool) : nullptr;
  if (type == nullptr) return nullptr;
  if (function == "count") return HasNullBits(*type) ? std::make_unique<Count>(pool) : nullptr;
  return function == "sum" ? MakeSum(*type, pool) : nullptr;
}

}  // namespace sabot::operators
