// What is done to every batch that came over the wire before anything reads it.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>
#include <arrow/util/align_util.h>

#include <memory>
#include <utility>

#include "sabot/native/rows/validation.h"
#include "sabot/native/spill/row_block.h"

namespace sabot::shuffle {

/// The batch with its values aligned for their types, which gRPC does not do and Acero needs; fully validated, although
/// a checksum may follow: a stranger's checksum may fit offsets that point anywhere.
inline arrow::Result<std::shared_ptr<arrow::RecordBatch>> AlignAndValidate(std::shared_ptr<arrow::RecordBatch> batch) {
  ARROW_ASSIGN_OR_RAISE(auto aligned, arrow::util::EnsureAlignment(std::move(batch), arrow::util::kValueAlignment,
                                                                   arrow::default_memory_pool()));
  ARROW_RETURN_NOT_OK(rows::ValidateRows(*aligned));
  return aligned;
}

/// The same for a batch that is to be kept: as one block, so that gRPC's memory goes with the message. Its columns are
/// added to `checksum`, unless null.
inline arrow::Result<std::shared_ptr<arrow::RecordBatch>> CopyAndValidate(const arrow::RecordBatch& batch,
                                                                          const spill::BlockSource& blocks,
                                                                          rows::BatchChecksum* checksum = nullptr) {
  ARROW_ASSIGN_OR_RAISE(auto copy, spill::CopyBuffers(batch, blocks, checksum));
  ARROW_RETURN_NOT_OK(rows::ValidateRows(*copy));
  return copy;
}

}  // namespace sabot::shuffle
