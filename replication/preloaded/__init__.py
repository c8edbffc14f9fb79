"""Jobs forked from a process that has the libraries loaded: the same bytes sooner. `__main__` is the command."""
