#include "sabot/native/shuffle/chunk_bytes.h"

#include <arrow/array.h>
#include <arrow/ipc/writer.h>

namespace sabot::shuffle {
namespace {

constexpr int64_t kAlignment = 64;

struct Buffers {
  int64_t count = 0;
  int64_t bytes = 0;
  int64_t dictionary_bytes = 0;  // of these, what dictionaries take

  void Add(const arrow::ArrayData& data) {
    for (const auto& buffer : data.buffers) {
      if (buffer == nullptr) continue;
      ++count;
      bytes += (buffer->size() + kAlignment - 1) / kAlignment * kAlignment;
    }
    for (const auto& child : data.child_data) Add(*child);
    if (data.dictionary != nullptr) AddDictionary(*data.dictionary);
  }

  void AddDictionary(const arrow::ArrayData& data) {
    const int64_t before = bytes;
    const int64_t dictionaries_before = dictionary_bytes;
    Add(data);
    dictionary_bytes = dictionaries_before + bytes - before;  // those within it are counted already
  }
};

Buffers BuffersOf(const arrow::RecordBatch& batch) {
  Buffers all;
  for (int i = 0; i < batch.num_columns(); ++i) all.Add(*batch.column_data(i));
  return all;
}

}  // namespace

int64_t ReceivedBytes(const arrow::RecordBatch& batch) { return BuffersOf(batch).bytes; }

arrow::Result<int64_t> BytesToReceive(const arrow::RecordBatch& batch) {
  int64_t size = 0;
  ARROW_RETURN_NOT_OK(arrow::ipc::GetRecordBatchSize(batch, &size));
  const Buffers all = BuffersOf(batch);  // IPC's size is without the dictionaries, which come in messages of their own
  return size + all.dictionary_bytes + kAlignment * all.count;
}

}  // namespace sabot::shuffle
