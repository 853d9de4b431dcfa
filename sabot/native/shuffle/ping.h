// The liveness answer: given by native code alone, so that a held GIL does not look like a dead agent.
#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace sabot::shuffle {

inline constexpr std::string_view kPingAction = "ping";

/// "SBTP", the protocol version as uint16, the incarnation as uint64.
std::string EncodePing(uint64_t incarnation);
/// The incarnation; kPeerRefused where the bytes are no answer of this protocol version.
arrow::Result<uint64_t> DecodePing(std::string_view bytes);

}  // namespace sabot::shuffle
