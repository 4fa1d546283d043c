"""How many data owners a server serves at once, and what they lose when its parts are killed.

`python -m nni_hyperfd.benchmark.load` starts everything that it needs on this machine: a PostgreSQL server (or a state
file), `hyperfd serve`, `hyperfd worker`, and clients, which lead whole tasks over HTTP.
"""
