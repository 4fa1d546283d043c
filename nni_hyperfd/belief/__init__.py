"""The default preset's mathematics: kernel, belief over a data set's vector, search (docs/method.md, B1 to B17)."""
