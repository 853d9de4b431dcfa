# shuffle
