"""Recommenders on tables of real measurements: tables, the online protocol, metrics and the command."""
