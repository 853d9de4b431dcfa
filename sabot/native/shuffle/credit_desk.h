// Who may send how much: the credits of a receiver's streams, out of bytes that it has reserved. A state machine
// without I/O, lock or clock. Fair between streams that wait, in the order in which they came to wait.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace sabot::shuffle {

class CreditDesk {
 public:
  using StreamId = uint64_t;

  struct Options {
    int64_t chunk_bytes = 5 << 20;  // what an ordinary chunk takes
    int64_t window_chunks = 2;      // so many of them are granted ahead to a stream that sends
  };
  struct Need {
    StreamId stream = 0;
    int64_t bytes = 0;
  };

  explicit CreditDesk(Options options) : options_(options) {}

  /// A stream of `peer`. The bytes that must be reserved now, whatever there is: a peer's own chunk, which is lent to
  /// nobody else, for its first stream; else 0.
  int64_t Opened(StreamId stream, const std::string& peer);
  /// The stream cannot go on with less than `total` in all, counted from its opening.
  void Wanted(StreamId stream, int64_t total);
  /// It has been answered: until it asks again nothing is reserved for it, but it keeps its place.
  void Answered(StreamId stream) { streams_.at(stream).asks = false; }
  /// Whether `total` could be granted to it with all that others give back, where `room` can be reserved in all: a
  /// peer's own chunk is given back by none.
  bool CanEverGrant(StreamId stream, int64_t total, int64_t room) const;
  /// False where that is more than was granted: nothing of it may be kept.
  bool Arrived(StreamId stream, int64_t bytes);
  /// So much of what arrived is stored or dropped, and no longer the desk's. What is to be given back.
  int64_t Settled(StreamId stream, int64_t bytes);
  int64_t Closed(StreamId stream);

  /// What should be reserved next, if that is possible; none where nobody who asks waits.
  std::optional<Need> NextWaiting() const;
  /// What should be reserved to keep `stream` sending; none while others wait.
  std::optional<Need> Ahead(StreamId stream) const;
  /// The need's bytes are reserved. What of them is not needed any more, and to be given back.
  int64_t Reserved(const Need& need);
  /// They cannot be reserved now: those who wait get what is their peers' own. True where anybody got something.
  bool LendOwnChunks();

  /// Granted to the stream since its opening.
  int64_t granted(StreamId stream) const { return streams_.at(stream).granted; }
  bool Waits(StreamId stream) const { return streams_.at(stream).wanted > streams_.at(stream).granted; }
  /// All that is reserved and not given back.
  int64_t reserved() const;

 private:
  struct Stream {
    std::string peer;
    int64_t granted = 0;  // all four count from the stream's opening
    int64_t wanted = 0;
    int64_t arrived = 0;
    int64_t settled = 0;
    bool asks = false;  // somebody waits for the answer
  };
  struct Peer {
    int64_t streams = 0;
    int64_t own = 0;  // of the peer's own chunk, what is not granted to a stream of it
  };

  /// `bytes` are free again: first the peer's own chunk is made whole. What is left.
  int64_t Release(Peer* peer, int64_t bytes) const;
  void Grant(StreamId stream, int64_t bytes);
  bool AsksInVain(StreamId stream) const { return streams_.at(stream).asks && Waits(stream); }

  const Options options_;
  std::map<StreamId, Stream> streams_;
  std::map<std::string, Peer> peers_;
  std::deque<StreamId> waiting_;  // in the order in which they came to wait
};

}  // namespace sabot::shuffle
