"""The coordinator of a job as a state machine, with its books: no I/O, no clock, no threads."""
