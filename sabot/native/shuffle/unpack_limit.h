// Refuses compressed rows before Flight unpacks them, where they would take more memory than one message may. Flight
// unpacks a whole message into Arrow's own pool before its reader hands out anything, so that neither credit nor the
// ledger sees it; the one place before that is the memory manager to which Flight takes a message's body.
#pragma once

#include <arrow/device.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>

namespace sabot::shuffle {

/// The bytes that a message's compressed buffers say they unpack into; 0 where they are not compressed. `body` is as
/// Flight gives it: a slice of the whole encoded FlightData. kIntegrity where it is not one that can be judged.
arrow::Result<int64_t> UnpackedBytes(const arrow::Buffer& body);

/// For FlightServerOptions and FlightCallOptions: takes a body as it is, or kLimit where it unpacks into more than
/// `bytes_max`.
std::shared_ptr<arrow::MemoryManager> LimitUnpacking(int64_t bytes_max);

/// What one message may unpack into under a limit of `memory_bytes_max` (0: none): an eighth, but any ordinary chunk.
int64_t UnpackedBytesMax(int64_t memory_bytes_max, int64_t chunk_bytes);

}  // namespace sabot::shuffle
