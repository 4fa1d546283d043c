"""The way of a task, from opening to closing: what all experiments share."""
