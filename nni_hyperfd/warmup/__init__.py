"""The warm-up: measuring configurations on the platform's data sets and learning from them before the first task."""
