"""One attempt of one task, in its own thread and the slots: read, work, hand on."""
