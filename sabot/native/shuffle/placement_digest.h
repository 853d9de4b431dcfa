// What tells whether two attempts of a task have put the same rows into the same partitions, in whatever order.
#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <vector>

#include "sabot/native/rows/partitioner.h"

namespace sabot::shuffle {

/// The wrapping sum, over the rows of `chunks`, of a hash of all columns bound to the row's partition.
arrow::Result<uint64_t> PlacementDigest(const std::vector<rows::ScatteredChunk>& chunks);

}  // namespace sabot::shuffle
