// The kinds of failure that native code reports, carried by arrow::Status as a detail and, across Flight, as a
// leading "[sabot:<code>] " of the message. One funnel in Cython maps them to sabot.errors.
#pragma once

#include <arrow/status.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace sabot {

enum class Code : int32_t {
  kOther = 0,          // no detail: an Arrow error, mapped by its own code
  kUsage = 1,          // UsageError
  kPeerLost = 2,       // PeerLost
  kPeerRefused = 3,    // PeerRefused
  kIntegrity = 4,      // ShuffleIntegrityError
  kLimit = 5,          // LimitReached
  kCancelled = 6,      // JobCancelled
  kInternal = 7,       // InternalError
  kUnhashableKey = 8,  // UsageError: a key type that cannot be partitioned by
  kTaskFailed = 9,     // TaskFailed
};

/// A Status that keeps `code` as its detail; `message` is complete, for the user.
arrow::Status MakeStatus(Code code, std::string message);

/// As MakeStatus with kLimit, for memory: pyarrow raises it as ArrowMemoryError where it does not pass our funnel.
arrow::Status MakeOutOfMemory(std::string message);

/// kLimit, for a thread that the system would not start; `what` is left undone.
arrow::Status MakeNoThread(const std::string& what);

/// The code of `status`: its detail's, or the one that a peer wrote in front of the message, or kOther.
Code CodeOf(const arrow::Status& status);

/// The message without a peer's "[sabot:<code>] " and without Flight's own wrapping after it.
std::string PlainMessage(const arrow::Status& status);

/// `message` with its middle left out where it has more than `bytes_max` bytes; both ends stay, and whole characters.
std::string ShortMessage(const std::string& message, size_t bytes_max);

/// The status as it should leave a Flight handler: its message led by "[sabot:<code>] ".
arrow::Status ForWire(const arrow::Status& status);

}  // namespace sabot
