# slots
