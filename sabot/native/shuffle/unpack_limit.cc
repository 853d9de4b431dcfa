#include "sabot/native/shuffle/unpack_limit.h"

#include <arrow/buffer.h>
#include <arrow/ipc/message.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

// FlightData of Flight.proto, and Message, RecordBatch and DictionaryBatch of Arrow's Message.fbs.
constexpr uint64_t kDataHeader = 2;
constexpr int kMessageHeader = 2;
constexpr int kDictionaryData = 1;
constexpr int kBatchBuffers = 2;
constexpr int kBatchCompression = 3;

template <typename T>
T Read(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

arrow::Status NotJudged() {
  return MakeStatus(Code::kIntegrity, "A message of rows is not laid out as Arrow Flight lays one out.");
}

std::optional<uint64_t> TakeVarint(std::string_view* bytes) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !bytes->empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes->front());
    bytes->remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

/// The last data_header of an encoded FlightData, as its decoder takes the last too; all its fields are of bytes.
std::optional<std::string_view> DataHeader(std::string_view encoded) {
  std::optional<std::string_view> found;
  while (!encoded.empty()) {
    const auto tag = TakeVarint(&encoded);
    if (!tag || (*tag & 7) != 2) return std::nullopt;
    const auto size = TakeVarint(&encoded);
    if (!size || *size > encoded.size()) return std::nullopt;
    if (*tag >> 3 == kDataHeader) found = encoded.substr(0, *size);
    encoded.remove_prefix(*size);
  }
  return found;
}

/// Where a verified flatbuffer's table has its field; null where it has none.
const uint8_t* FieldOf(const uint8_t* table, int field) {
  const uint8_t* const fields = table - Read<int32_t>(table);
  const int at = 4 + 2 * field;
  if (at >= Read<uint16_t>(fields)) return nullptr;
  const auto offset = Read<uint16_t>(fields + at);
  return offset == 0 ? nullptr : table + offset;
}

const uint8_t* Follow(const uint8_t* offset) { return offset == nullptr ? nullptr : offset + Read<uint32_t>(offset); }

class UnpackLimit : public arrow::CPUMemoryManager {
 public:
  explicit UnpackLimit(int64_t bytes_max)
      : CPUMemoryManager(arrow::CPUDevice::Instance(), arrow::default_memory_pool()), bytes_max_(bytes_max) {}

 protected:
  arrow::Result<std::shared_ptr<arrow::Buffer>> ViewBufferFrom(const std::shared_ptr<arrow::Buffer>& body,
                                                               const std::shared_ptr<MemoryManager>&) override {
    ARROW_RETURN_NOT_OK(Check(*body));
    return body;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> CopyBufferFrom(const std::shared_ptr<arrow::Buffer>& body,
                                                               const std::shared_ptr<MemoryManager>&) override {
    ARROW_RETURN_NOT_OK(Check(*body));  // Flight copies what it could not view: refused there, it is refused here
    return body;
  }

 private:
  arrow::Status Check(const arrow::Buffer& body) const {
    ARROW_ASSIGN_OR_RAISE(const int64_t bytes, UnpackedBytes(body));
    if (bytes <= bytes_max_) return arrow::Status::OK();
    return MakeStatus(Code::kLimit,
                      "A message of compressed rows would unpack into " + std::to_string(bytes) + " bytes, where " +
                          std::to_string(bytes_max_) +
                          " are allowed: an eighth of memory.bytes_max. Send fewer rows a batch, or do not compress "
                          "them (limit=memory.bytes_max)");
  }

  const int64_t bytes_max_;
};

}  // namespace

arrow::Result<int64_t> UnpackedBytes(const arrow::Buffer& body) {
  if (body.size() == 0) return 0;
  if (body.parent() == nullptr) return NotJudged();
  const auto header = DataHeader(std::string_view(*body.parent()));
  if (!header) return NotJudged();
  // Opening verifies the flatbuffer, so that what it points to can be followed; the version of before compression
  // could ask for it elsewhere.
  ARROW_ASSIGN_OR_RAISE(const auto message,
                        arrow::ipc::Message::Open(arrow::Buffer::FromString(std::string(*header)), nullptr));
  const bool dictionary = message->type() == arrow::ipc::MessageType::DICTIONARY_BATCH;
  if (!dictionary && message->type() != arrow::ipc::MessageType::RECORD_BATCH) return 0;
  if (message->metadata_version() != arrow::ipc::MetadataVersion::V5) return NotJudged();
  const uint8_t* const root = message->metadata()->data();
  const uint8_t* batch = Follow(FieldOf(Follow(root), kMessageHeader));
  if (dictionary && batch != nullptr) batch = Follow(FieldOf(batch, kDictionaryData));
  if (batch == nullptr) return NotJudged();
  const uint8_t* const buffers = Follow(FieldOf(batch, kBatchBuffers));
  if (FieldOf(batch, kBatchCompression) == nullptr || buffers == nullptr) return 0;
  int64_t total = 0;
  for (uint32_t i = 0; i < Read<uint32_t>(buffers); ++i) {
    const uint8_t* const buffer = buffers + 4 + 16 * static_cast<size_t>(i);  // the vector's count, then the pairs
    const auto offset = Read<int64_t>(buffer);
    if (Read<int64_t>(buffer + 8) == 0) continue;
    if (offset < 0 || offset > body.size() - 8) return NotJudged();
    const auto bytes = Read<int64_t>(body.data() + offset);
    if (bytes > std::numeric_limits<int64_t>::max() - total) return NotJudged();
    total += std::max<int64_t>(bytes, 0);  // -1: this one is not compressed
  }
  return total;
}

std::shared_ptr<arrow::MemoryManager> LimitUnpacking(int64_t bytes_max) {
  return std::make_shared<UnpackLimit>(bytes_max);
}

int64_t UnpackedBytesMax(int64_t memory_bytes_max, int64_t chunk_bytes) {
  if (memory_bytes_max == 0) return std::numeric_limits<int64_t>::max();
  return std::max(memory_bytes_max / 8, chunk_bytes);
}

}  // namespace sabot::shuffle
