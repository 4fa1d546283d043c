"""From a data set to a detector with one command: what `hyperfd tune`, `init`, `doctor` and `recommend DATA` do."""
