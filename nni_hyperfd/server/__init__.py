"""A platform for many data owners, over HTTP. Needs `pip install 'nni-hyperfd[server]'`."""
