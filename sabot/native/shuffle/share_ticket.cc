#include "sabot/native/shuffle/share_ticket.h"

#include "sabot/native/shuffle/ticket.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

constexpr std::string_view kPrefix = "sabot:1:share:";

arrow::Status NoShareTicket(std::string_view text) {
  return MakeStatus(Code::kUsage,
                    "The ticket \"" + std::string(text.substr(0, 200)) +
                        "\" does not say sabot:1:share:<id>:<partition>:<share>:<shares>:<attempt*count,...>, the id "
                        "percent-encoded, the share less than the shares, with at most 1048576 tasks.");
}

/// What stands before the first `mark`, which is taken away with it; all where there is none.
std::string_view TakeField(std::string_view* rest, char mark) {
  const size_t end = rest->find(mark);
  const std::string_view field = rest->substr(0, end);
  rest->remove_prefix(end == std::string_view::npos ? rest->size() : end + 1);
  return field;
}

arrow::Status DecodeRuns(std::string_view runs, std::vector<uint32_t>* attempts) {
  while (!runs.empty()) {
    std::string_view run = TakeField(&runs, ',');
    ARROW_ASSIGN_OR_RAISE(const int64_t attempt, DecodeNumber(TakeField(&run, '*'), "attempt"));
    ARROW_ASSIGN_OR_RAISE(const int64_t count, DecodeNumber(run, "count"));
    if (count > static_cast<int64_t>(kShareTasksMax - attempts->size())) return NoShareTicket(run);
    attempts->insert(attempts->end(), static_cast<size_t>(count), static_cast<uint32_t>(attempt));
  }
  return arrow::Status::OK();
}

}  // namespace

std::vector<AttemptKey> ShareTicket::keys() const {
  std::vector<AttemptKey> keys;
  keys.reserve(attempts.size());
  uint32_t task = share;
  for (const uint32_t attempt : attempts) {
    keys.push_back({task, attempt});
    task += shares;
  }
  return keys;
}

bool IsShareTicket(std::string_view text) { return text.starts_with(kPrefix); }

std::string EncodeShareTicket(const ShareTicket& ticket) {
  std::string text(kPrefix);
  text += PercentEncode(ticket.shuffle_id) + ":" + std::to_string(ticket.partition) + ":" +
          std::to_string(ticket.share) + ":" + std::to_string(ticket.shares) + ":";
  for (size_t first = 0; first < ticket.attempts.size();) {
    size_t end = first;
    while (end < ticket.attempts.size() && ticket.attempts[end] == ticket.attempts[first]) ++end;
    text += (first > 0 ? "," : "") + std::to_string(ticket.attempts[first]) + "*" + std::to_string(end - first);
    first = end;
  }
  return text;
}

arrow::Result<ShareTicket> DecodeShareTicket(std::string_view text) {
  if (!IsShareTicket(text)) return NoShareTicket(text);
  std::string_view rest = text.substr(kPrefix.size());
  ShareTicket ticket;
  if (!PercentDecode(TakeField(&rest, ':'), &ticket.shuffle_id)) return NoShareTicket(text);
  const auto partition = DecodeNumber(TakeField(&rest, ':'), "partition");
  const auto share = DecodeNumber(TakeField(&rest, ':'), "share");
  const auto shares = DecodeNumber(TakeField(&rest, ':'), "number of shares");
  const bool whole = partition.ok() && share.ok() && shares.ok() && *share < *shares && *shares <= kShareTasksMax &&
                     ticket.shuffle_id.size() <= kNameBytesMax;
  if (!whole || !DecodeRuns(rest, &ticket.attempts).ok()) return NoShareTicket(text);
  // The last task's number must not wrap: two attempts would be taken for one task's.
  if (static_cast<int64_t>(ticket.attempts.size()) * *shares > INT32_MAX) return NoShareTicket(text);
  ticket.partition = static_cast<int32_t>(*partition);
  ticket.share = static_cast<uint32_t>(*share);
  ticket.shares = static_cast<uint32_t>(*shares);
  return ticket;
}

}  // namespace sabot::shuffle
