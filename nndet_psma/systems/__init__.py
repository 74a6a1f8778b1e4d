"""The systems, each in a folder of its own; :mod:`nndet_psma.systems.system` says what a system is."""
