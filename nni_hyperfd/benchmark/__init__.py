"""Recommenders on tables of real measurements: tables, the online protocol, metrics and the programs that use them."""
