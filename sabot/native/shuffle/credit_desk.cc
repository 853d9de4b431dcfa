#include "sabot/native/shuffle/credit_desk.h"

namespace sabot::shuffle {

int64_t CreditDesk::Opened(StreamId stream, const std::string& peer) {
  streams_[stream].peer = peer;
  Peer& owner = peers_[peer];
  if (owner.streams++ > 0) return 0;
  owner.own = options_.chunk_bytes;
  return options_.chunk_bytes;
}

void CreditDesk::Wanted(StreamId stream, int64_t total) {
  Stream& own = streams_.at(stream);
  const bool waited = Waits(stream);
  own.wanted = total;
  own.asks = true;
  if (!waited && Waits(stream)) waiting_.push_back(stream);
  if (waited && !Waits(stream)) std::erase(waiting_, stream);
}

bool CreditDesk::CanEverGrant(StreamId stream, int64_t total, int64_t room) const {
  const Stream& own = streams_.at(stream);
  if (total - own.granted <= options_.chunk_bytes) return true;  // its peer's own chunk will do
  return total - own.settled <= room - options_.chunk_bytes * static_cast<int64_t>(peers_.size());
}

bool CreditDesk::Arrived(StreamId stream, int64_t bytes) {
  Stream& own = streams_.at(stream);
  if (bytes < 0 || bytes > own.granted - own.arrived) return false;
  own.arrived += bytes;
  return true;
}

int64_t CreditDesk::Release(Peer* peer, int64_t bytes) const {
  const int64_t kept = std::min(bytes, options_.chunk_bytes - peer->own);
  peer->own += kept;
  return bytes - kept;
}

int64_t CreditDesk::Settled(StreamId stream, int64_t bytes) {
  Stream& own = streams_.at(stream);
  own.settled += bytes;
  return Release(&peers_.at(own.peer), bytes);
}

int64_t CreditDesk::Closed(StreamId stream) {
  const auto found = streams_.find(stream);
  const Stream gone = found->second;
  streams_.erase(found);
  std::erase(waiting_, stream);
  const auto peer = peers_.find(gone.peer);
  const int64_t left = Release(&peer->second, gone.granted - gone.settled);
  if (--peer->second.streams > 0) return left;
  const int64_t own = peer->second.own;
  peers_.erase(peer);
  return left + own;
}

std::optional<CreditDesk::Need> CreditDesk::NextWaiting() const {
  const auto first = std::ranges::find_if(waiting_, [this](StreamId stream) { return AsksInVain(stream); });
  if (first == waiting_.end()) return std::nullopt;
  return Need{*first, streams_.at(*first).wanted - streams_.at(*first).granted};
}

std::optional<CreditDesk::Need> CreditDesk::Ahead(StreamId stream) const {
  if (NextWaiting()) return std::nullopt;
  const Stream& own = streams_.at(stream);
  const int64_t bytes = options_.chunk_bytes * options_.window_chunks - (own.granted - own.arrived);
  if (bytes <= 0) return std::nullopt;
  return Need{stream, bytes};
}

void CreditDesk::Grant(StreamId stream, int64_t bytes) {
  streams_.at(stream).granted += bytes;
  if (!Waits(stream)) std::erase(waiting_, stream);
}

int64_t CreditDesk::Reserved(const Need& need) {
  const auto found = streams_.find(need.stream);
  if (found == streams_.end()) return need.bytes;
  const Stream& own = found->second;
  // Between the question and the answer others may have granted it the same.
  const int64_t ahead = options_.chunk_bytes * options_.window_chunks - (own.granted - own.arrived);
  const int64_t taken = std::clamp<int64_t>(std::max(own.wanted - own.granted, ahead), 0, need.bytes);
  if (taken > 0) Grant(need.stream, taken);
  return need.bytes - taken;
}

bool CreditDesk::LendOwnChunks() {
  bool any = false;
  const std::deque<StreamId> waiting = waiting_;
  for (const StreamId stream : waiting) {
    const Stream& own = streams_.at(stream);
    Peer& peer = peers_.at(own.peer);
    const int64_t need = own.wanted - own.granted;
    if (!own.asks || need > peer.own) continue;
    peer.own -= need;
    Grant(stream, need);
    any = true;
  }
  return any;
}

int64_t CreditDesk::reserved() const {
  int64_t sum = 0;
  for (const auto& [id, stream] : streams_) sum += stream.granted - stream.settled;
  for (const auto& [name, peer] : peers_) sum += peer.own;
  return sum;
}

}  // namespace sabot::shuffle
