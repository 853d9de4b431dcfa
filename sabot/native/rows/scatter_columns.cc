#include "sabot/native/rows/scatter_columns.h"

#include <arrow/buffer.h>
#include <arrow/type_traits.h>
#include <arrow/util/bit_block_counter.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "sabot/native/rows/gather.h"
#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/storage.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

using arrow::ArrayData;
using arrow::ArrayVector;
using arrow::Buffer;
using arrow::Status;
using arrow::Type;

bool IsViewType(Type::type id) { return id == Type::STRING_VIEW || id == Type::BINARY_VIEW; }

template <size_t kWidth>
void PlaceValues(const uint8_t* values, int64_t rows, const uint32_t* destination, uint8_t* out) {
  for (int64_t i = 0; i < rows; ++i) std::memcpy(out + destination[i] * kWidth, values + i * kWidth, kWidth);
}

void PlaceValues(const uint8_t* values, int64_t rows, const uint32_t* destination, size_t width, uint8_t* out) {
  switch (width) {
    case 1:
      return PlaceValues<1>(values, rows, destination, out);
    case 2:
      return PlaceValues<2>(values, rows, destination, out);
    case 4:
      return PlaceValues<4>(values, rows, destination, out);
    case 8:
      return PlaceValues<8>(values, rows, destination, out);
    case 16:
      return PlaceValues<16>(values, rows, destination, out);
    case 32:
      return PlaceValues<32>(values, rows, destination, out);
    default:
      for (int64_t i = 0; i < rows; ++i) {
        std::memcpy(out + destination[i] * width, values + i * static_cast<int64_t>(width), width);
      }
  }
}

/// Most values of a table are short: copying those by two overlapping words beats a call of memcpy.
inline void CopyShort(uint8_t* out, const uint8_t* in, size_t size) {
  if (size > 32) {
    std::memcpy(out, in, size);
  } else if (size > 16) {
    std::memcpy(out, in, 16);
    std::memcpy(out + size - 16, in + size - 16, 16);
  } else if (size >= 8) {
    std::memcpy(out, in, 8);
    std::memcpy(out + size - 8, in + size - 8, 8);
  } else if (size >= 4) {
    std::memcpy(out, in, 4);
    std::memcpy(out + size - 4, in + size - 4, 4);
  } else if (size > 0) {
    out[0] = in[0];
    out[size / 2] = in[size / 2];
    out[size - 1] = in[size - 1];
  }
}

/// The validity bitmap of all inputs, placed; null where no input has nulls.
arrow::Result<std::shared_ptr<Buffer>> PlaceValidity(const ArrayVector& inputs, const Routing& routing) {
  int64_t nulls = 0;
  for (const auto& input : inputs) nulls += input->null_count();
  if (nulls == 0) return std::shared_ptr<Buffer>();
  const int64_t bytes = arrow::bit_util::BytesForBits(routing.rows);
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> bitmap, arrow::AllocateBuffer(bytes, routing.pool));
  uint8_t* bits = bitmap->mutable_data();
  std::memset(bits, 0xFF, static_cast<size_t>(bytes));
  const uint32_t* destination = routing.destination();
  for (const auto& input : inputs) {
    if (input->null_count() > 0) {
      arrow::internal::BitBlockCounter blocks(input->null_bitmap_data(), input->offset(), input->length());
      for (int64_t row = 0; row < input->length();) {
        const auto block = blocks.NextWord();
        for (int64_t i = row; !block.AllSet() && i < row + block.length; ++i) {
          const bool is_null = !arrow::bit_util::GetBit(input->null_bitmap_data(), input->offset() + i);
          bits[destination[i] >> 3] &= static_cast<uint8_t>(~(is_null << (destination[i] & 7)));
        }
        row += block.length;
      }
    }
    destination += input->length();
  }
  return bitmap;
}

arrow::Result<std::shared_ptr<Buffer>> PlaceBooleans(const ArrayVector& inputs, const Routing& routing) {
  const int64_t bytes = arrow::bit_util::BytesForBits(routing.rows);
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> out, arrow::AllocateBuffer(bytes, routing.pool));
  uint8_t* bits = out->mutable_data();
  std::memset(bits, 0, static_cast<size_t>(bytes));
  const uint32_t* destination = routing.destination();
  for (const auto& input : inputs) {
    const ArrayData& data = *input->data();
    for (int64_t i = 0; i < data.length; ++i) {
      const bool value = arrow::bit_util::GetBit(data.buffers[1]->data(), data.offset + i);
      bits[destination[i] >> 3] |= static_cast<uint8_t>(value << (destination[i] & 7));
    }
    destination += data.length;
  }
  return out;
}

arrow::Result<std::shared_ptr<Buffer>> PlaceFixedWidth(const ArrayVector& inputs, const Routing& routing,
                                                       int32_t width) {
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> out, arrow::AllocateBuffer(routing.rows * width, routing.pool));
  const uint32_t* destination = routing.destination();
  for (const auto& input : inputs) {
    const ArrayData& data = *input->data();
    if (data.length > 0 && width > 0) {
      PlaceValues(data.buffers[1]->data() + data.offset * width, data.length, destination, static_cast<size_t>(width),
                  out->mutable_data());
    }
    destination += data.length;
  }
  return out;
}

template <typename Offset>
int64_t ValueBytes(const ArrayData& data) {
  if (data.length == 0) return 0;
  const uint8_t* offsets = data.buffers[1]->data() + data.offset * static_cast<int64_t>(sizeof(Offset));
  return static_cast<int64_t>(LoadAt<Offset>(offsets, data.length)) - static_cast<int64_t>(LoadAt<Offset>(offsets, 0));
}

/// Fills `out_offsets` (rows + 1 of them) with the running total of the lengths of the placed values.
template <typename Offset>
void PlaceOffsets(const ArrayVector& inputs, const Routing& routing, Offset* out_offsets) {
  const uint32_t* destination = routing.destination();
  for (const auto& input : inputs) {
    const ArrayData& data = *input->data();
    if (data.length == 0) continue;
    const uint8_t* offsets = data.buffers[1]->data() + data.offset * static_cast<int64_t>(sizeof(Offset));
    for (int64_t i = 0; i < data.length; ++i) {
      out_offsets[destination[i] + int64_t{1}] = LoadAt<Offset>(offsets, i + 1) - LoadAt<Offset>(offsets, i);
    }
    destination += data.length;
  }
  out_offsets[0] = 0;
  for (int64_t row = 0; row < routing.rows; ++row) out_offsets[row + 1] += out_offsets[row];
}

template <typename Offset>
arrow::Result<arrow::BufferVector> PlaceBinaries(const ArrayVector& inputs, const Routing& routing,
                                                 const std::string& name) {
  int64_t total_bytes = 0;
  for (const auto& input : inputs) total_bytes += ValueBytes<Offset>(*input->data());
  if (total_bytes > std::numeric_limits<Offset>::max()) return TooManyValues(name, *inputs.front()->type());

  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> offset_buffer,
                        arrow::AllocateBuffer((routing.rows + 1) * static_cast<int64_t>(sizeof(Offset)), routing.pool));
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> bytes, arrow::AllocateBuffer(total_bytes, routing.pool));
  auto* out_offsets = reinterpret_cast<Offset*>(offset_buffer->mutable_data());
  PlaceOffsets(inputs, routing, out_offsets);
  uint8_t* out = bytes->mutable_data();
  const uint32_t* destination = routing.destination();
  for (const auto& input : inputs) {
    const ArrayData& data = *input->data();
    if (ValueBytes<Offset>(data) > 0) {
      const uint8_t* offsets = data.buffers[1]->data() + data.offset * static_cast<int64_t>(sizeof(Offset));
      const uint8_t* in = data.buffers[2]->data();
      Offset start = LoadAt<Offset>(offsets, 0);
      for (int64_t i = 0; i < data.length; ++i) {
        const Offset end = LoadAt<Offset>(offsets, i + 1);
        CopyShort(out + out_offsets[destination[i]], in + start, static_cast<size_t>(end - start));
        start = end;
      }
    }
    destination += data.length;
  }
  return arrow::BufferVector{std::move(offset_buffer), std::move(bytes)};
}

}  // namespace

Status CheckScatterType(const arrow::DataType& type, const std::string& name) {
  const arrow::DataType& storage = StorageOf(type);
  switch (storage.id()) {
    case Type::DICTIONARY:
      return MakeStatus(Code::kUsage, "Column '" + name + "' holds dictionary-encoded values (" + type.ToString() +
                                          "), which are not shuffled; decode it first by a cast to its value type.");
    case Type::SPARSE_UNION:
    case Type::DENSE_UNION:
    case Type::RUN_END_ENCODED:
      return MakeStatus(Code::kUsage, "Column '" + name + "' holds values of type " + type.ToString() +
                                          ", which are not shuffled; cast it to a plain type or drop it first.");
    default:
      for (const auto& field : storage.fields()) ARROW_RETURN_NOT_OK(CheckScatterType(*field->type(), name));
      return Status::OK();
  }
}

int64_t ApproximateBytes(const arrow::Array& array) {
  const ArrayData& data = *array.data();
  const arrow::DataType& type = StorageOf(*array.type());
  const int64_t validity = data.MayHaveNulls() ? array.length() / 8 : 0;
  if (type.id() == Type::NA) return 0;
  if (type.id() == Type::BOOL) return array.length() / 8 + validity;
  if (arrow::is_fixed_width(type.id())) return array.length() * type.byte_width() + validity;
  if (arrow::is_binary_like(type.id())) return ValueBytes<int32_t>(data) + array.length() * 4 + validity;
  if (arrow::is_large_binary_like(type.id())) return ValueBytes<int64_t>(data) + array.length() * 8 + validity;
  if (IsViewType(type.id())) {
    int64_t bytes = array.length() * arrow::BinaryViewType::kSize + validity;
    for (int64_t i = 0; i < array.length(); ++i) {
      if (array.IsNull(i)) continue;
      const auto view = LoadAt<arrow::BinaryViewType::c_type>(data.buffers[1]->data(), data.offset + i);
      if (!view.is_inline()) bytes += view.size();
    }
    return bytes;
  }
  const auto referenced = arrow::util::ReferencedBufferSize(array);
  return referenced.ok() ? *referenced : arrow::util::TotalBufferSize(array);
}

arrow::Result<ArrayVector> ColumnScatter::Scatter(const ArrayVector& inputs, const std::string& name) {
  const auto& type = inputs.front()->type();
  const arrow::DataType& storage = StorageOf(*type);
  ArrayVector pieces;
  pieces.reserve(routing_.cuts.size());
  if (!arrow::is_fixed_width(storage.id()) && !arrow::is_base_binary_like(storage.id()))
    return GatherByCut(inputs, name);
  ARROW_ASSIGN_OR_RAISE(const auto whole, ScatterFlat(inputs, name));
  for (const Cut& cut : routing_.cuts) pieces.push_back(arrow::MakeArray(whole->Slice(cut.start, cut.rows)));
  return pieces;
}

arrow::Result<std::shared_ptr<ArrayData>> ColumnScatter::ScatterFlat(const ArrayVector& inputs,
                                                                     const std::string& name) {
  const auto& type = inputs.front()->type();
  const arrow::DataType& storage = StorageOf(*type);
  ARROW_ASSIGN_OR_RAISE(auto validity, PlaceValidity(inputs, routing_));
  const int64_t null_count = validity == nullptr ? 0 : arrow::kUnknownNullCount;
  arrow::BufferVector buffers{std::move(validity)};
  if (storage.id() == Type::BOOL) {
    ARROW_ASSIGN_OR_RAISE(auto values, PlaceBooleans(inputs, routing_));
    buffers.push_back(std::move(values));
  } else if (arrow::is_fixed_width(storage.id())) {
    ARROW_ASSIGN_OR_RAISE(auto values, PlaceFixedWidth(inputs, routing_, storage.byte_width()));
    buffers.push_back(std::move(values));
  } else {
    ARROW_ASSIGN_OR_RAISE(auto values, arrow::is_binary_like(storage.id())
                                           ? PlaceBinaries<int32_t>(inputs, routing_, name)
                                           : PlaceBinaries<int64_t>(inputs, routing_, name));
    buffers.insert(buffers.end(), values.begin(), values.end());
  }
  return ArrayData::Make(type, routing_.rows, std::move(buffers), null_count);
}

arrow::Result<const uint32_t*> ColumnScatter::Sources() {
  if (sources_ == nullptr) {
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Buffer> buffer, arrow::AllocateBuffer(routing_.rows * 4, routing_.pool));
    auto* source = reinterpret_cast<uint32_t*>(buffer->mutable_data());
    const uint32_t* destination = routing_.destination();
    for (int64_t row = 0; row < routing_.rows; ++row) source[destination[row]] = static_cast<uint32_t>(row);
    sources_ = std::move(buffer);
  }
  return reinterpret_cast<const uint32_t*>(sources_->data());
}

arrow::Result<ArrayVector> ColumnScatter::GatherByCut(const ArrayVector& inputs, const std::string& name) {
  ARROW_ASSIGN_OR_RAISE(const uint32_t* sources, Sources());
  GatherInputs datas;
  std::vector<int64_t> ends;  // of each input, counted over all inputs' rows
  for (const auto& input : inputs) {
    datas.push_back(input->data().get());
    ends.push_back((ends.empty() ? 0 : ends.back()) + input->length());
  }
  ArrayVector pieces;
  pieces.reserve(routing_.cuts.size());
  std::vector<Run> runs;
  for (const Cut& cut : routing_.cuts) {
    runs.clear();
    int64_t run_end = -1;  // the row after the last run, if it is still in that run's input
    for (int64_t row = cut.start; row < cut.start + cut.rows; ++row) {
      const int64_t source = sources[row];
      if (source == run_end) {
        ++runs.back().length;
      } else {
        const auto input = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), source) - ends.begin());
        runs.push_back({input, source - (ends[input] - inputs[input]->length()), 1});
      }
      run_end = source + 1 == ends[runs.back().input] ? -1 : source + 1;
    }
    ARROW_ASSIGN_OR_RAISE(const auto piece, Gather(inputs.front()->type(), datas, runs, name, routing_.pool));
    pieces.push_back(arrow::MakeArray(piece));
  }
  return pieces;
}

}  // namespace sabot::rows
