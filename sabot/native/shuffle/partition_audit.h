// The reader's side of the audit: sums computed anew from the rows that are about to be released, as morsels in the
// slots.
#pragma once

#include <memory>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/slot_call.h"

namespace sabot::shuffle {

/// Which shuffle and partition a message should name.
struct AuditNames {
  std::string shuffle_id;
  std::string agent;
  int32_t partition = 0;
  int32_t num_partitions = 1;
};

/// Recomputes rows and content sum of `contents`, and that every row's hash belongs to the partition; one morsel a
/// piece. Blocks the caller, never a slot. kIntegrity names the culprit.
arrow::Result<PartitionSum> AuditPartition(const PartitionContents& contents, const AuditNames& names,
                                           const SlotUse& slots);

}  // namespace sabot::shuffle
