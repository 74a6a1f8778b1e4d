"""Adapters to other frameworks: the only place of the package that imports one."""
