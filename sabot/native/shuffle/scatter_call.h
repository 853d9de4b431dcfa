// Regroups rows in a slot and hands the chunks to their owners' outboxes.
#pragma once

#include <memory>
#include <vector>

#include "sabot/native/rows/partitioner.h"
#include "sabot/native/shuffle/attempt_sender.h"
#include "sabot/native/shuffle/slot_call.h"

namespace sabot::shuffle {

/// Scatters `batches` as one LOCAL morsel and sends what comes of it. Blocks the caller, never a slot.
arrow::Status ScatterAndSend(const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches,
                             const rows::ScatterOptions& options, const std::shared_ptr<AttemptSender>& sender,
                             const SlotUse& slots);

}  // namespace sabot::shuffle
