"""Does a learning rate that was found on a narrow model hold for a wide one? SP against muP."""
