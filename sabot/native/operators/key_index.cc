#include "sabot/native/operators/key_index.h"

#include <arrow/array/util.h>
#include <arrow/buffer_builder.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace sabot::operators {

namespace {

arrow::Result<std::shared_ptr<arrow::Array>> Finished(arrow::TypedBufferBuilder<int32_t>* rows) {
  const int64_t count = rows->length();
  ARROW_ASSIGN_OR_RAISE(auto buffer, rows->Finish());
  return arrow::MakeArray(arrow::ArrayData::Make(arrow::int32(), count, {nullptr, std::move(buffer)}, 0));
}

}  // namespace

arrow::Result<std::unique_ptr<KeyIndex>> KeyIndex::Make(const arrow::ChunkedArray& keys, arrow::MemoryPool* pool) {
  std::unique_ptr<KeyIndex> index(new KeyIndex(pool));
  index->numbers_ = KeyNumbers::Make(keys.type(), pool);
  if (index->numbers_ == nullptr || keys.length() > std::numeric_limits<int32_t>::max()) return nullptr;
  std::vector<uint32_t> numbers(static_cast<size_t>(keys.length()));
  int64_t row = 0;
  for (const auto& chunk : keys.chunks()) {
    ARROW_RETURN_NOT_OK(index->numbers_->Number(*chunk->data(), numbers.data() + row));
    row += chunk->length();
  }
  if (index->numbers_->count() < keys.length() && !index->List(numbers)) return nullptr;
  return index;
}

bool KeyIndex::List(const std::vector<uint32_t>& numbers) {
  starts_.assign(static_cast<size_t>(numbers_->count()) + 1, 0);
  for (const uint32_t number : numbers) ++starts_[number + 1];
  if (*std::ranges::max_element(starts_) > kRowsOfKeyMax) return false;
  std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
  rows_.resize(numbers.size());
  std::vector<int32_t> next(starts_.begin(), starts_.end() - 1);
  for (size_t row = 0; row < numbers.size(); ++row) rows_[next[numbers[row]]++] = static_cast<int32_t>(row);
  return true;
}

arrow::Result<KeyMatches> KeyIndex::Match(const arrow::ChunkedArray& keys) const {
  arrow::TypedBufferBuilder<int32_t> probing(pool_), indexed(pool_);
  std::vector<uint32_t> numbers;
  int32_t row = 0;
  bool one_each = true;
  for (const auto& chunk : keys.chunks()) {
    numbers.resize(static_cast<size_t>(chunk->length()));
    numbers_->Find(*chunk->data(), numbers.data());
    ARROW_RETURN_NOT_OK(probing.Reserve(chunk->length()));
    ARROW_RETURN_NOT_OK(indexed.Reserve(chunk->length()));
    for (const uint32_t number : numbers) {
      if (number == KeyNumbers::kNoNumber) {
        one_each = false;
      } else if (rows_.empty()) {
        probing.UnsafeAppend(row);
        indexed.UnsafeAppend(static_cast<int32_t>(number));
      } else {
        const int32_t begin = starts_[number], end = starts_[number + 1];
        one_each = one_each && end - begin == 1;
        ARROW_RETURN_NOT_OK(probing.Append(end - begin, row));
        ARROW_RETURN_NOT_OK(indexed.Append(rows_.data() + begin, end - begin));
      }
      ++row;
    }
  }
  KeyMatches matches;
  if (!one_each) {
    ARROW_ASSIGN_OR_RAISE(matches.probing, Finished(&probing));
  }
  ARROW_ASSIGN_OR_RAISE(matches.indexed, Finished(&indexed));
  return matches;
}

}  // namespace sabot::operators
