#include "sabot/native/rows/run_grouping.h"

#include <arrow/array/array_base.h>
#include <arrow/array/data.h>
#include <arrow/array/util.h>
#include <arrow/buffer.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/bitmap_ops.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

using arrow::ArrayData;
using arrow::ArraySpan;
using arrow::Type;

__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 UInt128;

/// Calls `visit` with a value of the C type that holds the values of `type`: false where there is none.
template <typename Visit>
bool VisitStored(const arrow::DataType& type, Visit&& visit) {
  switch (type.id()) {
    case Type::INT8:
      visit(int8_t{});
      return true;
    case Type::UINT8:
      visit(uint8_t{});
      return true;
    case Type::INT16:
      visit(int16_t{});
      return true;
    case Type::UINT16:
      visit(uint16_t{});
      return true;
    case Type::UINT32:
      visit(uint32_t{});
      return true;
    case Type::UINT64:
      visit(uint64_t{});
      return true;
    case Type::INT32:
    case Type::DATE32:
    case Type::TIME32:
      visit(int32_t{});
      return true;
    case Type::INT64:
    case Type::DATE64:
    case Type::TIME64:
    case Type::TIMESTAMP:
    case Type::DURATION:
      visit(int64_t{});
      return true;
    case Type::FLOAT:
      visit(float{});
      return true;
    case Type::DOUBLE:
      visit(double{});
      return true;
    case Type::DECIMAL128:
      visit(Int128{});
      return true;
    default:
      return false;
  }
}

bool IsKey(const arrow::DataType& type) {
  bool fits = false;
  VisitStored(type, [&](auto stored) { fits = !std::is_floating_point_v<decltype(stored)>; });
  return fits;
}

/// Whether a bitmap says which values are null.
bool IsCounted(const arrow::DataType& type) {
  return !arrow::is_union(type.id()) && !arrow::is_dictionary(type.id()) && type.id() != Type::NA &&
         type.id() != Type::RUN_END_ENCODED && type.id() != Type::EXTENSION;
}

int64_t WidthOf(const arrow::DataType& type) {
  int64_t width = 0;
  VisitStored(type, [&](auto stored) { width = static_cast<int64_t>(sizeof(stored)); });
  return width;
}

bool IsSummed(const arrow::DataType& type) {
  return arrow::is_integer(type.id()) || type.id() == Type::FLOAT || type.id() == Type::DOUBLE ||
         type.id() == Type::DECIMAL128;
}

/// The first row of each run, and after the last one the number of rows.
using Starts = std::vector<int64_t>;

struct Column {
  explicit Column(const ArrayData& data) : span(data), nulls(span.GetNullCount() != 0) {}

  bool IsValid(int64_t row) const { return !nulls || arrow::bit_util::GetBit(span.buffers[0].data, span.offset + row); }

  template <typename T>
  const uint8_t* Values() const {
    return span.buffers[1].data + span.offset * static_cast<int64_t>(sizeof(T));
  }

  ArraySpan span;
  bool nulls;
};

template <typename T>
void MarkChanges(const Column& key, std::vector<uint8_t>* changed) {
  const uint8_t* values = key.Values<T>();
  const int64_t rows = key.span.length;
  uint8_t* out = changed->data();
  if (!key.nulls) {
    for (int64_t row = 1; row < rows; ++row) {
      out[row] |= static_cast<uint8_t>(LoadAt<T>(values, row) != LoadAt<T>(values, row - 1));
    }
    return;
  }
  bool before = key.IsValid(0);
  for (int64_t row = 1; row < rows; ++row) {
    const bool now = key.IsValid(row);
    const bool other = LoadAt<T>(values, row) != LoadAt<T>(values, row - 1);
    out[row] |= static_cast<uint8_t>(now != before || (now && other));
    before = now;
  }
}

/// Whether the keys ascend from run to run; none is null.
bool Ascends(const std::vector<Column>& keys, const Starts& starts) {
  for (size_t run = 1; run + 1 < starts.size(); ++run) {
    int order = 0;
    for (const Column& key : keys) {
      VisitStored(*key.span.type, [&](auto stored) {
        using T = decltype(stored);
        const T before = LoadAt<T>(key.Values<T>(), starts[run - 1]);
        const T now = LoadAt<T>(key.Values<T>(), starts[run]);
        order = before < now ? 1 : (now < before ? -1 : 0);
      });
      if (order != 0) break;
    }
    if (order <= 0) return false;
  }
  return true;
}

/// No starts where the rules want no runs.
Starts FindRuns(const std::vector<Column>& keys, int64_t rows, const RunRules& rules) {
  if (rules.ascending && std::any_of(keys.begin(), keys.end(), [](const Column& key) { return key.nulls; })) return {};
  std::vector<uint8_t> changed(static_cast<size_t>(rows), 0);
  changed[0] = 1;
  for (const Column& key : keys) {
    VisitStored(*key.span.type, [&](auto stored) { MarkChanges<decltype(stored)>(key, &changed); });
  }
  const int64_t runs = std::count(changed.begin(), changed.end(), uint8_t{1});
  if (runs > rules.runs_max) return {};
  Starts starts;
  starts.reserve(static_cast<size_t>(runs) + 1);
  for (int64_t row = 0; row < rows; ++row) {
    if (changed[static_cast<size_t>(row)] != 0) starts.push_back(row);
  }
  starts.push_back(rows);
  if (rules.ascending && !Ascends(keys, starts)) return {};
  return starts;
}

/// An array under way: a value for each run, and which are valid once one is not.
class Answers {
 public:
  static arrow::Result<Answers> Make(int64_t runs, int64_t width, arrow::MemoryPool* pool) {
    Answers answers;
    answers.runs_ = runs;
    ARROW_ASSIGN_OR_RAISE(answers.values_, arrow::AllocateBuffer(runs * width, pool));
    ARROW_ASSIGN_OR_RAISE(answers.valid_, arrow::AllocateBitmap(runs, pool));
    arrow::bit_util::SetBitsTo(answers.valid_->mutable_data(), 0, runs, true);
    return answers;
  }

  template <typename T>
  void Set(int64_t run, T value) {
    std::memcpy(values_->mutable_data() + run * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
  }

  void SetNull(int64_t run) {
    arrow::bit_util::ClearBit(valid_->mutable_data(), run);
    ++nulls_;
  }

  std::shared_ptr<arrow::Array> Finish(std::shared_ptr<arrow::DataType> type) {
    std::shared_ptr<arrow::Buffer> valid = nulls_ == 0 ? nullptr : std::move(valid_);
    return arrow::MakeArray(ArrayData::Make(std::move(type), runs_, {std::move(valid), std::move(values_)}, nulls_));
  }

 private:
  int64_t runs_ = 0;
  int64_t nulls_ = 0;
  std::shared_ptr<arrow::Buffer> values_;
  std::shared_ptr<arrow::Buffer> valid_;
};

/// Folds the valid values of each run by `fold(so far, value)`, the first by `first(value)`; null where there are none.
template <typename T, typename Sum, typename First, typename Fold>
void FoldRuns(const Column& column, const Starts& starts, First&& first, Fold&& fold, Answers* out) {
  const uint8_t* values = column.Values<T>();
  for (size_t run = 0; run + 1 < starts.size(); ++run) {
    int64_t row = starts[run];
    const int64_t end = starts[run + 1];
    while (row < end && !column.IsValid(row)) ++row;
    if (row == end) {
      out->Set<Sum>(static_cast<int64_t>(run), Sum{});
      out->SetNull(static_cast<int64_t>(run));
      continue;
    }
    Sum folded = first(LoadAt<T>(values, row));
    for (++row; row < end; ++row) {
      if (column.IsValid(row)) folded = fold(folded, LoadAt<T>(values, row));
    }
    out->Set<Sum>(static_cast<int64_t>(run), folded);
  }
}

template <typename T>
struct SumOf {
  using Type = std::conditional_t<std::is_floating_point_v<T>, double,
                                  std::conditional_t<std::is_same_v<T, Int128>, UInt128, uint64_t>>;
};

std::shared_ptr<arrow::DataType> SumType(const arrow::DataType& type) {
  if (type.id() == Type::DECIMAL128) {
    return arrow::decimal128(38, static_cast<const arrow::Decimal128Type&>(type).scale());
  }
  if (type.id() == Type::FLOAT || type.id() == Type::DOUBLE) return arrow::float64();
  return static_cast<const arrow::IntegerType&>(type).is_signed() ? arrow::int64() : arrow::uint64();
}

template <typename T>
void Fold(RunFunction function, const Column& column, const Starts& starts, Answers* out) {
  if (function == RunFunction::kSum) {
    // Unsigned, since sums wrap around as pyarrow's do.
    using Sum = typename SumOf<T>::Type;
    FoldRuns<T, Sum>(
        column, starts, [](T value) { return static_cast<Sum>(value); },
        [](Sum sum, T value) { return sum + static_cast<Sum>(value); }, out);
  } else if constexpr (std::is_floating_point_v<T>) {  // a NaN gives way to any number
    const bool min = function == RunFunction::kMin;
    FoldRuns<T, T>(
        column, starts, [](T value) { return value; },
        [min](T best, T value) { return min ? std::fmin(best, value) : std::fmax(best, value); }, out);
  } else {
    const bool min = function == RunFunction::kMin;
    FoldRuns<T, T>(
        column, starts, [](T value) { return value; },
        [min](T best, T value) { return min ? std::min(best, value) : std::max(best, value); }, out);
  }
}

void Count(const Column* column, const Starts& starts, Answers* out) {
  for (size_t run = 0; run + 1 < starts.size(); ++run) {
    const int64_t start = starts[run];
    int64_t count = starts[run + 1] - start;
    if (column != nullptr && column->nulls) {
      count = arrow::internal::CountSetBits(column->span.buffers[0].data, column->span.offset + start, count);
    }
    out->Set<int64_t>(static_cast<int64_t>(run), count);
  }
}

arrow::Result<std::shared_ptr<arrow::Array>> AggregateRuns(const arrow::RecordBatch& rows, RunAggregate aggregate,
                                                           const Starts& starts, arrow::MemoryPool* pool) {
  const auto runs = static_cast<int64_t>(starts.size()) - 1;
  if (aggregate.function == RunFunction::kCountAll || aggregate.function == RunFunction::kCount) {
    ARROW_ASSIGN_OR_RAISE(Answers counts, Answers::Make(runs, sizeof(int64_t), pool));
    if (aggregate.function == RunFunction::kCountAll) {
      Count(nullptr, starts, &counts);
    } else {
      const Column column(*rows.column_data(aggregate.column));
      Count(&column, starts, &counts);
    }
    return counts.Finish(arrow::int64());
  }
  const Column column(*rows.column_data(aggregate.column));
  const std::shared_ptr<arrow::DataType>& given = rows.column_data(aggregate.column)->type;
  const std::shared_ptr<arrow::DataType> type = aggregate.function == RunFunction::kSum ? SumType(*given) : given;
  ARROW_ASSIGN_OR_RAISE(Answers answers, Answers::Make(runs, WidthOf(*type), pool));
  VisitStored(*given, [&](auto stored) { Fold<decltype(stored)>(aggregate.function, column, starts, &answers); });
  return answers.Finish(type);
}

arrow::Result<std::shared_ptr<arrow::Array>> FirstOfRuns(const ArrayData& key, const Starts& starts,
                                                         arrow::MemoryPool* pool) {
  const Column column(key);
  const auto runs = static_cast<int64_t>(starts.size()) - 1;
  ARROW_ASSIGN_OR_RAISE(Answers firsts, Answers::Make(runs, WidthOf(*key.type), pool));
  VisitStored(*key.type, [&](auto stored) {
    using T = decltype(stored);
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t row = starts[static_cast<size_t>(run)];
      firsts.Set<T>(run, LoadAt<T>(column.Values<T>(), row));
      if (!column.IsValid(row)) firsts.SetNull(run);
    }
  });
  return firsts.Finish(key.type);
}

}  // namespace

bool CanGroupRuns(const arrow::Schema& schema, const std::vector<int>& keys,
                  const std::vector<RunAggregate>& aggregates, bool ascending) {
  const auto is_key = [&](int key) {
    const arrow::DataType& type = *schema.field(key)->type();
    return IsKey(type) && !(ascending && type.id() == Type::DECIMAL128);
  };
  const auto is_aggregated = [&](RunAggregate aggregate) {
    if (aggregate.function == RunFunction::kCountAll) return true;
    const arrow::DataType& type = *schema.field(aggregate.column)->type();
    if (aggregate.function == RunFunction::kSum) return IsSummed(type);
    return aggregate.function == RunFunction::kCount ? IsCounted(type) : VisitStored(type, [](auto) {});
  };
  return !keys.empty() && std::all_of(keys.begin(), keys.end(), is_key) &&
         std::all_of(aggregates.begin(), aggregates.end(), is_aggregated);
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> GroupRuns(const arrow::RecordBatch& rows,
                                                             const std::vector<int>& keys,
                                                             const std::vector<RunAggregate>& aggregates,
                                                             const RunRules& rules, arrow::MemoryPool* pool) {
  if (!CanGroupRuns(*rows.schema(), keys, aggregates, rules.ascending)) {
    return MakeStatus(Code::kInternal, "Columns that cannot be grouped in runs were to be; please report this.");
  }
  if (rows.num_rows() == 0) return nullptr;
  std::vector<Column> columns;
  columns.reserve(keys.size());
  for (int key : keys) columns.emplace_back(*rows.column_data(key));
  const Starts starts = FindRuns(columns, rows.num_rows(), rules);
  if (starts.empty()) return nullptr;
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (int key : keys) {
    ARROW_ASSIGN_OR_RAISE(arrays.emplace_back(), FirstOfRuns(*rows.column_data(key), starts, pool));
  }
  for (RunAggregate aggregate : aggregates) {
    ARROW_ASSIGN_OR_RAISE(arrays.emplace_back(), AggregateRuns(rows, aggregate, starts, pool));
  }
  for (const auto& array : arrays) fields.push_back(arrow::field(std::to_string(fields.size()), array->type()));
  return arrow::RecordBatch::Make(arrow::schema(std::move(fields)), static_cast<int64_t>(starts.size()) - 1,
                                  std::move(arrays));
}

}  // namespace sabot::rows
