// A DoGet stream of the rows that certain attempts sent to a partition: each batch is of one task, and carries a
// checksum that its reader verifies, so that what was audited here cannot change on the way.
#pragma once

#include <arrow/flight/server.h>

#include <memory>

#include "sabot/native/shuffle/partition_audit.h"
#include "sabot/native/shuffle/stream_watch.h"

namespace sabot::shuffle {

/// Sends what `reader` releases, cut to about `batch_bytes_max`, audited in the stream's thread.
arrow::Result<std::unique_ptr<arrow::flight::FlightDataStream>> MakeShareStream(PartitionReader reader,
                                                                                int64_t batch_bytes_max,
                                                                                StreamWatch::Stream open);

}  // namespace sabot::shuffle
