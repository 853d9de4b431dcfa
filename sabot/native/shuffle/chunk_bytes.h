// How much credit a chunk takes: what its receiver may have to hold for it.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>

namespace sabot::shuffle {

/// What the receiver holds of a batch that came: its buffers, each rounded up to 64 bytes, with the dictionaries,
/// which are copied with every batch that is kept.
int64_t ReceivedBytes(const arrow::RecordBatch& batch);

/// As much as ReceivedBytes of the batch once it has come over IPC, or a little more.
arrow::Result<int64_t> BytesToReceive(const arrow::RecordBatch& batch);

}  // namespace sabot::shuffle
