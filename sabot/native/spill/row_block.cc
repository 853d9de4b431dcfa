#include "sabot/native/spill/row_block.h"

#include <arrow/array.h>
#include <arrow/buffer.h>
#include <arrow/type_traits.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/bitmap_ops.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "sabot/native/rows/gather.h"
#include "sabot/native/rows/storage.h"
#include "sabot/native/spill/stream_bytes.h"
#include "sabot/native/status.h"

namespace sabot::spill {
namespace {

using arrow::ArrayData;
using arrow::Buffer;
using arrow::Type;

/// Memory that stands on an account for as long as anybody holds it.
class HeldBlock : public arrow::MutableBuffer {
 public:
  HeldBlock(std::unique_ptr<Buffer> memory, BlockSource source)
      : MutableBuffer(memory->mutable_data(), memory->size()), source_(std::move(source)), memory_(std::move(memory)) {
    if (source_.ledger != nullptr) source_.ledger->Hold(source_.account, memory_->capacity());
  }
  ~HeldBlock() override {
    if (source_.ledger != nullptr) source_.ledger->Drop(source_.account, memory_->capacity());
  }

 private:
  const BlockSource source_;
  const std::unique_ptr<Buffer> memory_;  // after source_: its pool must be there when it goes
};

bool IsOfNestedKind(const arrow::DataType& type) {
  const Type::type id = rows::StorageOf(type).id();
  return !(id == Type::NA || id == Type::DICTIONARY || arrow::is_fixed_width(id) || arrow::is_base_binary_like(id));
}

/// Whether rows of the type can be gathered; of the others every buffer is kept whole.
bool IsGathered(const arrow::DataType& type) {
  const arrow::DataType& storage = rows::StorageOf(type);
  const Type::type id = storage.id();
  if (id == Type::DICTIONARY || arrow::is_union(id) || id == Type::RUN_END_ENCODED) return false;
  return std::ranges::all_of(storage.fields(), [](const auto& field) { return IsGathered(*field->type()); });
}

/// Whether the checksum may take the values of a column as they came, and hand them on. The last of its parts is then
/// that of its values.
bool IsPlain(const ArrayData& data) {
  const arrow::DataType& type = rows::StorageOf(*data.type);
  return arrow::is_fixed_width(type.id()) && type.id() != Type::BOOL && data.dictionary == nullptr &&
         data.offset == 0 && data.buffers.size() == 2 && data.buffers[1] != nullptr;
}

/// One copy: first what goes where is written down, then the block is made and filled, a column after the other.
class BlockCopy {
 public:
  arrow::Result<std::shared_ptr<ArrayData>> PlanRows(const std::shared_ptr<ArrayData>& data, const std::string& name,
                                                     arrow::MemoryPool* pool);
  std::shared_ptr<ArrayData> PlanBuffers(const ArrayData& data);
  void EndColumn() { column_ends_.push_back(parts_.size()); }
  int64_t bytes() const { return bytes_; }
  /// `came` and `columns` are what was planned and what came of it; `checksum` may be null. Unless it is valid, only
  /// plain columns pass the cache by: the others are read again to be validated.
  arrow::Status Fill(const BlockSource& source, const arrow::RecordBatch& came,
                     const std::vector<std::shared_ptr<ArrayData>>& columns, bool valid, rows::BatchChecksum* checksum);

 private:
  enum class Kind { kBytes, kBits, kOffsets32, kOffsets64 };
  struct Part {
    Kind kind;
    const uint8_t* from;
    int64_t first;  // a bit, or an offset's place
    int64_t count;  // bytes, bits or offsets
    int64_t bytes;
    ArrayData* target;
    size_t buffer;
  };

  void Add(Part part);
  void AddBuffer(const std::shared_ptr<Buffer>& buffer, ArrayData* target, size_t index);
  template <typename Offset>
  void AddBinary(const ArrayData& data, ArrayData* target);
  template <typename Offset>
  static void CopyOffsets(const Part& part, uint8_t* out);
  static void Copy(const Part& part, bool streams, uint8_t* out);
  static arrow::Status CopyAndAdd(const Part& part, const ArrayData& came, rows::BatchChecksum* checksum, uint8_t* out);

  std::vector<Part> parts_;
  std::vector<size_t> column_ends_;               // into parts_
  std::vector<std::shared_ptr<ArrayData>> kept_;  // what parts point into until they are copied
  int64_t bytes_ = 0;
};

void BlockCopy::Add(Part part) {
  bytes_ += arrow::bit_util::RoundUpToMultipleOf64(part.bytes);
  parts_.push_back(part);
}

void BlockCopy::AddBuffer(const std::shared_ptr<Buffer>& buffer, ArrayData* target, size_t index) {
  if (buffer != nullptr) Add({Kind::kBytes, buffer->data(), 0, buffer->size(), buffer->size(), target, index});
}

template <typename Offset>
void BlockCopy::AddBinary(const ArrayData& data, ArrayData* target) {
  constexpr Kind kind = sizeof(Offset) == 4 ? Kind::kOffsets32 : Kind::kOffsets64;
  target->buffers.resize(3);
  if (data.length == 0 || data.buffers[1] == nullptr || data.buffers[1]->size() == 0) {
    static const Offset none = 0;
    Add({Kind::kBytes, reinterpret_cast<const uint8_t*>(&none), 0, sizeof none, sizeof none, target, 1});
    return Add({Kind::kBytes, nullptr, 0, 0, 0, target, 2});
  }
  const auto* offsets = reinterpret_cast<const Offset*>(data.buffers[1]->data()) + data.offset;
  const int64_t count = data.length + 1;
  Add({kind, reinterpret_cast<const uint8_t*>(offsets), 0, count, count * static_cast<int64_t>(sizeof(Offset)), target,
       1});
  const auto bytes = static_cast<int64_t>(offsets[data.length]) - static_cast<int64_t>(offsets[0]);
  const uint8_t* values = bytes == 0 ? nullptr : data.buffers[2]->data() + offsets[0];
  Add({Kind::kBytes, values, 0, bytes, bytes, target, 2});
}

arrow::Result<std::shared_ptr<ArrayData>> BlockCopy::PlanRows(const std::shared_ptr<ArrayData>& data,
                                                              const std::string& name, arrow::MemoryPool* pool) {
  const arrow::DataType& storage = rows::StorageOf(*data->type);
  if (IsOfNestedKind(*data->type)) {
    if (!IsGathered(*data->type)) return PlanBuffers(*data);
    ARROW_ASSIGN_OR_RAISE(auto gathered, rows::Gather(data->type, {data.get()}, {{0, 0, data->length}}, name, pool));
    kept_.push_back(gathered);
    return PlanBuffers(*gathered);
  }
  auto copy = std::make_shared<ArrayData>(data->type, data->length, data->GetNullCount());
  copy->buffers.resize(1);
  if (storage.id() == Type::NA) return copy;
  const int64_t bitmap_bytes = arrow::bit_util::BytesForBits(data->length);
  if (copy->null_count != 0) {
    Add({Kind::kBits, data->buffers[0]->data(), data->offset, data->length, bitmap_bytes, copy.get(), 0});
  }
  if (arrow::is_binary_like(storage.id())) {
    AddBinary<int32_t>(*data, copy.get());
  } else if (arrow::is_large_binary_like(storage.id())) {
    AddBinary<int64_t>(*data, copy.get());
  } else if (storage.id() == Type::BOOL) {
    copy->buffers.resize(2);
    Add({Kind::kBits, data->buffers[1]->data(), data->offset, data->length, bitmap_bytes, copy.get(), 1});
  } else {
    copy->buffers.resize(2);
    const int64_t width = storage.byte_width();
    const int64_t bytes = data->length * width;
    const uint8_t* values = bytes == 0 ? nullptr : data->buffers[1]->data() + data->offset * width;
    Add({Kind::kBytes, values, 0, bytes, bytes, copy.get(), 1});
  }
  if (data->dictionary != nullptr) copy->dictionary = PlanBuffers(*data->dictionary);
  return copy;
}

std::shared_ptr<ArrayData> BlockCopy::PlanBuffers(const ArrayData& data) {
  auto copy = std::make_shared<ArrayData>(data.type, data.length, data.null_count.load(), data.offset);
  copy->buffers.resize(data.buffers.size());
  for (size_t i = 0; i < data.buffers.size(); ++i) AddBuffer(data.buffers[i], copy.get(), i);
  for (const auto& child : data.child_data) copy->child_data.push_back(PlanBuffers(*child));
  if (data.dictionary != nullptr) copy->dictionary = PlanBuffers(*data.dictionary);
  return copy;
}

template <typename Offset>
void BlockCopy::CopyOffsets(const Part& part, uint8_t* out) {
  const auto* from = reinterpret_cast<const Offset*>(part.from);
  auto* to = reinterpret_cast<Offset*>(out);
  const Offset start = from[0];
  for (int64_t i = 0; i < part.count; ++i) to[i] = from[i] - start;
}

void BlockCopy::Copy(const Part& part, bool streams, uint8_t* out) {
  switch (part.kind) {
    case Kind::kBytes:
      if (streams) return StreamBytes(out, part.from, part.bytes);
      if (part.bytes > 0) std::memcpy(out, part.from, static_cast<size_t>(part.bytes));
      return;
    case Kind::kBits:
      return arrow::internal::CopyBitmap(part.from, part.first, part.count, out, 0);
    case Kind::kOffsets32:
      return CopyOffsets<int32_t>(part, out);
    case Kind::kOffsets64:
      return CopyOffsets<int64_t>(part, out);
  }
}

arrow::Status BlockCopy::CopyAndAdd(const Part& part, const ArrayData& came, rows::BatchChecksum* checksum,
                                    uint8_t* out) {
  int64_t copied = 0;
  if (checksum != nullptr) {
    ARROW_RETURN_NOT_OK(checksum->AddAndTake(came, [&](const uint8_t* bytes, int64_t size) {
      StreamBytes(out + copied, bytes, size);
      copied += size;
    }));
  }
  StreamBytes(out + copied, part.from + copied, part.bytes - copied);  // what lies behind the values
  return arrow::Status::OK();
}

arrow::Status BlockCopy::Fill(const BlockSource& source, const arrow::RecordBatch& came,
                              const std::vector<std::shared_ptr<ArrayData>>& columns, bool valid,
                              rows::BatchChecksum* checksum) {
  const bool streams = source.ledger != nullptr;  // what is on no account is read again at once
  ARROW_ASSIGN_OR_RAISE(auto memory, arrow::AllocateBuffer(bytes_, 64, source.pool));
  const std::shared_ptr<Buffer> block = std::make_shared<HeldBlock>(std::move(memory), source);
  int64_t at = 0;
  size_t next = 0;
  for (size_t column = 0; column < column_ends_.size(); ++column) {
    const ArrayData& data = *came.column_data(static_cast<int>(column));
    const bool plain = !valid && IsPlain(data);
    for (; next < column_ends_[column]; ++next) {
      const Part& part = parts_[next];
      uint8_t* out = block->mutable_data() + at;
      const int64_t padded = arrow::bit_util::RoundUpToMultipleOf64(part.bytes);
      if (padded > 0) std::memset(out + padded - 64, 0, 64);  // what a bitmap and the padding do not fill
      part.target->buffers[part.buffer] = arrow::SliceBuffer(block, at, part.bytes);
      at += padded;
      if (plain && next + 1 == column_ends_[column]) {
        ARROW_RETURN_NOT_OK(CopyAndAdd(part, data, checksum, out));
      } else {
        Copy(part, streams && valid, out);
      }
    }
    if (checksum != nullptr && !plain) ARROW_RETURN_NOT_OK(checksum->Add(*columns[column]));
  }
  EndStreams();
  kept_.clear();
  return arrow::Status::OK();
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> Filled(BlockCopy* copy, const arrow::RecordBatch& batch,
                                                          std::vector<std::shared_ptr<ArrayData>> columns,
                                                          const BlockSource& source, bool valid,
                                                          rows::BatchChecksum* checksum) {
  ARROW_RETURN_NOT_OK(copy->Fill(source, batch, columns, valid, checksum));
  return arrow::RecordBatch::Make(batch.schema(), batch.num_rows(), std::move(columns));
}

/// Bytes of the memory that the buffers lie in, each counted once.
void AddRoots(const ArrayData& data, std::set<const Buffer*>* seen, int64_t* bytes, int64_t* buffers) {
  for (const auto& buffer : data.buffers) {
    if (buffer == nullptr) continue;
    const Buffer* root = buffer.get();
    while (root->parent() != nullptr) root = root->parent().get();
    if (seen->insert(root).second) *bytes += root->size();
    ++*buffers;
  }
  for (const auto& child : data.child_data) AddRoots(*child, seen, bytes, buffers);
  if (data.dictionary != nullptr) AddRoots(*data.dictionary, seen, bytes, buffers);
}

}  // namespace

arrow::Result<std::shared_ptr<arrow::RecordBatch>> CopyRows(const arrow::RecordBatch& batch,
                                                            const BlockSource& source) {
  BlockCopy copy;
  std::vector<std::shared_ptr<ArrayData>> columns;
  for (int i = 0; i < batch.num_columns(); ++i) {
    ARROW_ASSIGN_OR_RAISE(auto column, copy.PlanRows(batch.column_data(i), batch.column_name(i), source.pool));
    columns.push_back(std::move(column));
    copy.EndColumn();
  }
  return Filled(&copy, batch, std::move(columns), source, /*valid=*/true, nullptr);
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> CopyBuffers(const arrow::RecordBatch& batch,
                                                               const BlockSource& source,
                                                               rows::BatchChecksum* checksum) {
  BlockCopy copy;
  std::vector<std::shared_ptr<ArrayData>> columns;
  std::set<const Buffer*> seen;
  int64_t came = 0;
  int64_t buffers = 0;
  for (int i = 0; i < batch.num_columns(); ++i) {
    columns.push_back(copy.PlanBuffers(*batch.column_data(i)));
    copy.EndColumn();
    AddRoots(*batch.column_data(i), &seen, &came, &buffers);
  }
  if (copy.bytes() > came + 64 * buffers) {
    return MakeStatus(Code::kIntegrity, "Rows of " + std::to_string(came) + " bytes would unfold to " +
                                            std::to_string(copy.bytes()) + ": their buffers overlap.");
  }
  return Filled(&copy, batch, std::move(columns), source, /*valid=*/false, checksum);
}

}  // namespace sabot::spill
