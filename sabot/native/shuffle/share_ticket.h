// Tickets for the rows that certain attempts sent to one partition of a job's shuffle (docs/protocol.md).
#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sabot/native/shuffle/bookkeeping.h"

namespace sabot::shuffle {

inline constexpr uint32_t kShareTasksMax = 1u << 20;

/// Of every `shares` tasks in turn the one at `share`: tasks share, share + shares, ... `attempts` has the attempt of
/// each of these.
struct ShareTicket {
  std::string shuffle_id;
  int32_t partition = 0;
  uint32_t share = 0;
  uint32_t shares = 1;
  std::vector<uint32_t> attempts;

  std::vector<AttemptKey> keys() const;
};

bool IsShareTicket(std::string_view text);
/// "sabot:1:share:<id>:<partition>:<share>:<shares>:<runs>", a run being attempt*count, joined by commas.
std::string EncodeShareTicket(const ShareTicket& ticket);
/// kUsage naming the form where `text` is not of it.
arrow::Result<ShareTicket> DecodeShareTicket(std::string_view text);

}  // namespace sabot::shuffle
