#include "sabot/native/rows/gather.h"

#include <arrow/buffer.h>
#include <arrow/type_traits.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/bitmap_ops.h>

#include <cstring>
#include <limits>
#include <utility>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/storage.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

using arrow::ArrayData;
using arrow::Buffer;
using arrow::Type;
using ArrayResult = arrow::Result<std::shared_ptr<ArrayData>>;

/// One call of Gather: its arguments, and what each kind of type makes of them.
class Gatherer {
 public:
  Gatherer(const std::shared_ptr<arrow::DataType>& type, const arrow::DataType& storage, const GatherInputs& inputs,
           const std::vector<Run>& runs, const std::string& name, arrow::MemoryPool* pool)
      : type_(type), storage_(storage), inputs_(inputs), runs_(runs), name_(name), pool_(pool) {
    for (const Run& run : runs_) rows_ += run.length;
  }

  ArrayResult Gather();

 private:
  arrow::Result<std::shared_ptr<Buffer>> Bitmap(size_t buffer, bool is_validity);
  ArrayResult FixedWidth();
  template <typename Offset>
  ArrayResult Binaries();
  template <typename Offset>
  ArrayResult Lists();
  template <typename Offset>
  ArrayResult ListViews();
  ArrayResult FixedSizeLists();
  ArrayResult Structs();
  ArrayResult Views();
  arrow::Result<int64_t> CopyViews(std::pair<size_t, int64_t>* position, int64_t row, uint8_t* out, ArrayData* result);

  template <typename Offset>
  arrow::Result<std::shared_ptr<Buffer>> Offsets(std::vector<Run>* value_runs);
  ArrayResult Child(size_t child, const std::vector<Run>& runs);
  arrow::Result<std::shared_ptr<ArrayData>> Make(arrow::BufferVector buffers);

  const uint8_t* BufferOf(const Run& run, size_t buffer) const {
    return inputs_[run.input]->buffers[buffer] == nullptr ? nullptr : inputs_[run.input]->buffers[buffer]->data();
  }
  int64_t FirstOf(const Run& run) const { return inputs_[run.input]->offset + run.start; }

  const std::shared_ptr<arrow::DataType>& type_;
  const arrow::DataType& storage_;
  const GatherInputs& inputs_;
  const std::vector<Run>& runs_;
  const std::string& name_;
  arrow::MemoryPool* const pool_;
  int64_t rows_ = 0;
};

/// A bitmap of the inputs, gathered. Validity is null where no input has nulls; an input without a bitmap is all ones.
arrow::Result<std::shared_ptr<Buffer>> Gatherer::Bitmap(size_t buffer, bool is_validity) {
  bool is_needed = !is_validity;
  for (const ArrayData* input : inputs_) is_needed = is_needed || input->GetNullCount() > 0;
  if (!is_needed) return std::shared_ptr<Buffer>();
  const int64_t bytes = arrow::bit_util::BytesForBits(rows_);
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> out, arrow::AllocateBuffer(bytes, pool_));
  std::memset(out->mutable_data(), 0, static_cast<size_t>(bytes));
  int64_t row = 0;
  for (const Run& run : runs_) {
    const uint8_t* bits = BufferOf(run, buffer);
    if (bits == nullptr) {
      arrow::bit_util::SetBitsTo(out->mutable_data(), row, run.length, true);
    } else if (run.length == 1) {
      if (arrow::bit_util::GetBit(bits, FirstOf(run))) arrow::bit_util::SetBit(out->mutable_data(), row);
    } else {
      arrow::internal::CopyBitmap(bits, FirstOf(run), run.length, out->mutable_data(), row);
    }
    row += run.length;
  }
  return out;
}

ArrayResult Gatherer::Make(arrow::BufferVector buffers) {
  ARROW_ASSIGN_OR_RAISE(auto validity, Bitmap(0, /*is_validity=*/true));
  const int64_t null_count = validity == nullptr ? 0 : arrow::kUnknownNullCount;
  buffers.insert(buffers.begin(), std::move(validity));
  return ArrayData::Make(type_, rows_, std::move(buffers), null_count);
}

ArrayResult Gatherer::FixedWidth() {
  const int64_t width = storage_.byte_width();
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> values, arrow::AllocateBuffer(rows_ * width, pool_));
  uint8_t* out = values->mutable_data();
  for (const Run& run : runs_) {
    if (run.length * width == 0) continue;
    std::memcpy(out, BufferOf(run, 1) + FirstOf(run) * width, static_cast<size_t>(run.length * width));
    out += run.length * width;
  }
  return Make({std::move(values)});
}

/// The offsets of all rows, counted from 0; `value_runs` gets the runs of values between them, one per run of rows.
template <typename Offset>
arrow::Result<std::shared_ptr<Buffer>> Gatherer::Offsets(std::vector<Run>* value_runs) {
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> buffer,
                        arrow::AllocateBuffer((rows_ + 1) * static_cast<int64_t>(sizeof(Offset)), pool_));
  auto* out = reinterpret_cast<Offset*>(buffer->mutable_data());
  int64_t total = 0;
  for (const Run& run : runs_) {
    if (run.length == 0) continue;
    const uint8_t* offsets = BufferOf(run, 1);
    const int64_t first = LoadAt<Offset>(offsets, FirstOf(run));
    const int64_t last = LoadAt<Offset>(offsets, FirstOf(run) + run.length);
    if (total + last - first > std::numeric_limits<Offset>::max()) return TooManyValues(name_, *type_);
    for (int64_t i = 0; i < run.length; ++i) {
      *out++ = static_cast<Offset>(total + LoadAt<Offset>(offsets, FirstOf(run) + i) - first);
    }
    if (last > first) value_runs->push_back({run.input, first, last - first});
    total += last - first;
  }
  *out = static_cast<Offset>(total);
  return buffer;
}

template <typename Offset>
ArrayResult Gatherer::Binaries() {
  std::vector<Run> value_runs;
  value_runs.reserve(runs_.size());
  ARROW_ASSIGN_OR_RAISE(auto offsets, Offsets<Offset>(&value_runs));
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> bytes,
                        arrow::AllocateBuffer(reinterpret_cast<const Offset*>(offsets->data())[rows_], pool_));
  uint8_t* out = bytes->mutable_data();
  for (const Run& run : value_runs) {
    std::memcpy(out, BufferOf(run, 2) + run.start, static_cast<size_t>(run.length));
    out += run.length;
  }
  return Make({std::move(offsets), std::move(bytes)});
}

ArrayResult Gatherer::Child(size_t child, const std::vector<Run>& runs) {
  GatherInputs children;
  children.reserve(inputs_.size());
  for (const ArrayData* input : inputs_) children.push_back(input->child_data[child].get());
  return sabot::rows::Gather(storage_.field(static_cast<int>(child))->type(), children, runs, name_, pool_);
}

template <typename Offset>
ArrayResult Gatherer::Lists() {
  std::vector<Run> value_runs;
  value_runs.reserve(runs_.size());
  ARROW_ASSIGN_OR_RAISE(auto offsets, Offsets<Offset>(&value_runs));
  ARROW_ASSIGN_OR_RAISE(auto result, Make({std::move(offsets)}));
  ARROW_ASSIGN_OR_RAISE(auto child, Child(0, value_runs));
  result->child_data.push_back(std::move(child));
  return result;
}

template <typename Offset>
ArrayResult Gatherer::ListViews() {
  const int64_t bytes = rows_ * static_cast<int64_t>(sizeof(Offset));
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> offset_buffer, arrow::AllocateBuffer(bytes, pool_));
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> size_buffer, arrow::AllocateBuffer(bytes, pool_));
  auto* offsets = reinterpret_cast<Offset*>(offset_buffer->mutable_data());
  auto* sizes = reinterpret_cast<Offset*>(size_buffer->mutable_data());
  std::vector<Run> value_runs;
  int64_t total = 0;
  for (const Run& run : runs_) {
    const uint8_t* validity = BufferOf(run, 0);
    for (int64_t i = FirstOf(run); i < FirstOf(run) + run.length; ++i) {
      const bool is_valid = validity == nullptr || arrow::bit_util::GetBit(validity, i);
      const int64_t size = is_valid ? LoadAt<Offset>(BufferOf(run, 2), i) : 0;
      if (total + size > std::numeric_limits<Offset>::max()) return TooManyValues(name_, *type_);
      *offsets++ = static_cast<Offset>(total);
      *sizes++ = static_cast<Offset>(size);
      if (size > 0) value_runs.push_back({run.input, LoadAt<Offset>(BufferOf(run, 1), i), size});
      total += size;
    }
  }
  ARROW_ASSIGN_OR_RAISE(auto result, Make({std::move(offset_buffer), std::move(size_buffer)}));
  ARROW_ASSIGN_OR_RAISE(auto child, Child(0, value_runs));
  result->child_data.push_back(std::move(child));
  return result;
}

ArrayResult Gatherer::FixedSizeLists() {
  const int64_t size = static_cast<const arrow::FixedSizeListType&>(storage_).list_size();
  std::vector<Run> value_runs;
  value_runs.reserve(runs_.size());
  for (const Run& run : runs_) value_runs.push_back({run.input, FirstOf(run) * size, run.length * size});
  ARROW_ASSIGN_OR_RAISE(auto result, Make({}));
  ARROW_ASSIGN_OR_RAISE(auto child, Child(0, value_runs));
  result->child_data.push_back(std::move(child));
  return result;
}

ArrayResult Gatherer::Structs() {
  std::vector<Run> field_runs;
  field_runs.reserve(runs_.size());
  for (const Run& run : runs_) field_runs.push_back({run.input, FirstOf(run), run.length});
  ARROW_ASSIGN_OR_RAISE(auto result, Make({}));
  for (int field = 0; field < storage_.num_fields(); ++field) {
    ARROW_ASSIGN_OR_RAISE(auto child, Child(static_cast<size_t>(field), field_runs));
    result->child_data.push_back(std::move(child));
  }
  return result;
}

/// Copies views from `position` (run, row of the run) on, and their bytes into one new buffer of `result`, until that
/// is as large as a view's offset can tell; returns the output row after the last.
arrow::Result<int64_t> Gatherer::CopyViews(std::pair<size_t, int64_t>* position, int64_t row, uint8_t* out,
                                           ArrayData* result) {
  using View = arrow::BinaryViewType::c_type;
  const auto out_index = static_cast<int32_t>(result->buffers.size()) - 2;
  std::vector<std::pair<const uint8_t*, int32_t>> sources;
  int64_t bytes = 0;
  auto& [run_index, run_row] = *position;
  for (; run_index < runs_.size(); ++run_index, run_row = 0) {
    const Run& run = runs_[run_index];
    const uint8_t* validity = BufferOf(run, 0);
    for (; run_row < run.length; ++run_row, ++row) {
      const int64_t index = FirstOf(run) + run_row;
      View view{};  // of a null
      if (validity == nullptr || arrow::bit_util::GetBit(validity, index)) view = LoadAt<View>(BufferOf(run, 1), index);
      if (!view.is_inline()) {
        if (bytes + view.size() > std::numeric_limits<int32_t>::max()) break;
        sources.emplace_back(BufferOf(run, static_cast<size_t>(view.ref.buffer_index) + 2) + view.ref.offset,
                             view.size());
        view.ref.buffer_index = out_index;
        view.ref.offset = static_cast<int32_t>(bytes);
        bytes += view.size();
      }
      std::memcpy(out + row * arrow::BinaryViewType::kSize, &view, sizeof(view));
    }
    if (run_row < run.length) break;
  }
  if (bytes == 0) return row;
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> buffer, arrow::AllocateBuffer(bytes, pool_));
  uint8_t* next = buffer->mutable_data();
  for (const auto& [source, size] : sources) {
    std::memcpy(next, source, static_cast<size_t>(size));
    next += size;
  }
  result->buffers.push_back(std::move(buffer));
  return row;
}

ArrayResult Gatherer::Views() {
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> views,
                        arrow::AllocateBuffer(rows_ * arrow::BinaryViewType::kSize, pool_));
  uint8_t* out = views->mutable_data();
  ARROW_ASSIGN_OR_RAISE(auto result, Make({std::move(views)}));
  std::pair<size_t, int64_t> position{0, 0};
  for (int64_t row = 0; row < rows_;) {
    ARROW_ASSIGN_OR_RAISE(row, CopyViews(&position, row, out, result.get()));
  }
  return result;
}

ArrayResult Gatherer::Gather() {
  switch (storage_.id()) {
    case Type::NA:
      return ArrayData::Make(type_, rows_, {nullptr}, rows_);
    case Type::BOOL: {
      ARROW_ASSIGN_OR_RAISE(auto values, Bitmap(1, /*is_validity=*/false));
      return Make({std::move(values)});
    }
    case Type::BINARY:
    case Type::STRING:
      return Binaries<int32_t>();
    case Type::LARGE_BINARY:
    case Type::LARGE_STRING:
      return Binaries<int64_t>();
    case Type::BINARY_VIEW:
    case Type::STRING_VIEW:
      return Views();
    case Type::LIST:
    case Type::MAP:
      return Lists<int32_t>();
    case Type::LARGE_LIST:
      return Lists<int64_t>();
    case Type::LIST_VIEW:
      return ListViews<int32_t>();
    case Type::LARGE_LIST_VIEW:
      return ListViews<int64_t>();
    case Type::FIXED_SIZE_LIST:
      return FixedSizeLists();
    case Type::STRUCT:
      return Structs();
    default:
      return FixedWidth();
  }
}

}  // namespace

arrow::Status TooManyValues(const std::string& name, const arrow::DataType& type) {
  return MakeStatus(Code::kLimit, "Column '" + name + "' of type " + type.ToString() +
                                      " has more than 2147483647 bytes or values in one scatter, which its 32-bit "
                                      "offsets cannot count; cast it to the type's large form (large_string, "
                                      "large_binary, large_list), or give smaller batches.");
}

ArrayResult Gather(const std::shared_ptr<arrow::DataType>& type, const GatherInputs& inputs,
                   const std::vector<Run>& runs, const std::string& name, arrow::MemoryPool* pool) {
  return Gatherer(type, StorageOf(*type), inputs, runs, name, pool).Gather();
}

}  // namespace sabot::rows
