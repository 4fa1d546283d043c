"""The warm-up: measuring configurations on the platform's own data sets, and learning from them before any task."""
