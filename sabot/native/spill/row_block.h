// Rows in one block: a batch copied into a single 64-byte aligned allocation that holds its own rows and nothing else,
// so that what is kept is counted to the byte and goes when its rows go, whatever the batch was a slice of.
#pragma once

#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <memory>

#include "sabot/native/memory/ledger.h"
#include "sabot/native/rows/checksum.h"

namespace sabot::spill {

/// Where blocks come from and on whose account they stand.
struct BlockSource {
  std::shared_ptr<memory::Ledger> ledger;  // shared with every block, which may outlive the agent; may be null
  arrow::MemoryPool* pool = arrow::default_memory_pool();  // lives as long as the process
  memory::Account account = memory::Account::kStore;
};

/// The rows of `batch`, which is valid, alone: of a slice only the slice.
arrow::Result<std::shared_ptr<arrow::RecordBatch>> CopyRows(const arrow::RecordBatch& batch, const BlockSource& source);

/// Every buffer of `batch` as it is, looked at no further than its size, so that a stranger's batch may be copied
/// before it is validated. kIntegrity where its buffers overlap, so that the copy would be larger than what came. Adds
/// its columns to `checksum`, unless null, each while it is in the cache.
arrow::Result<std::shared_ptr<arrow::RecordBatch>> CopyBuffers(const arrow::RecordBatch& batch,
                                                               const BlockSource& source,
                                                               rows::BatchChecksum* checksum = nullptr);

}  // namespace sabot::spill
