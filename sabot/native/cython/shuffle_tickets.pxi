# Tickets as text.


cdef CShareTicket _share_ticket(str shuffle_id, int partition, attempts, share) except *:
    cdef CShareTicket ticket
    ticket.shuffle_id = _bytes(shuffle_id)
    ticket.partition = partition
    ticket.share, ticket.shares = share
    ticket.attempts = list(attempts)[ticket.share::ticket.shares]
    return ticket


def share_ticket_of(str shuffle_id, int partition, attempts, *, share):
    """The DoGet ticket of a share (index, count) of a partition, where `attempts` has the attempt of every task."""
    return CEncodeShareTicket(_share_ticket(shuffle_id, partition, attempts, share)).decode()


def ticket_of(str name, int64_t index, *, bint shuffle=False):
    """The DoGet ticket of a published part, or of a shuffle's partition."""
    cdef CTicketParts parts
    parts.kind = kTicketShuffle if shuffle else kTicketPublished
    parts.name = _bytes(name)
    parts.index = index
    return CEncodeTicket(parts).decode()
